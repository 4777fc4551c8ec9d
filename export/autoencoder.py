"""An autoencoder of torch as an ONNX graph from image to reconstruction."""

from flawline.detectors.autoencoder import Autoencoder, fold_batch_norm
from flawline.export.backbone import trace
from flawline.export.feature_graph import FeatureGraph, cut

OUTPUT = "reconstruction"


def export_autoencoder(autoencoder: Autoencoder) -> FeatureGraph:
    """Exports an autoencoder for any batch, its batch normalisation folded.

    Args:
        autoencoder: Trained; left as it is.

    Returns:
        The graph: float32 (N, channels, height, width) from 0 to 1 to the reconstruction of the same shape. The same for
        the same weights.
    """
    shape = autoencoder.image_shape
    folded = fold_batch_norm(autoencoder).cpu()
    model = trace(folded, shape, [OUTPUT], title=autoencoder.title)
    return cut(model, [OUTPUT], shape.height, shape.width, origin=autoencoder.title)
