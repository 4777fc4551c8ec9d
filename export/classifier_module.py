"""A classifier of torch as its graph wants it: deep features and logits as maps of one position, and the second head's layers."""

from torch import Tensor, nn

from flawline.detectors.classifier import Classifier
from flawline.detectors.second_head import SecondHead
from flawline.export.classifier_graph import Layer


class AtOnePosition(nn.Module):
    """Normalised images, float32 (N, channels, height, width), to features (N, d, 1, 1) and logits (N, K, 1, 1).

    Args:
        classifier: What gives them.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = self.classifier.trunk(image)
        logits = self.classifier.logits(features)
        return features[:, :, None, None], logits[:, :, None, None]


def layers_of(head: SecondHead) -> list[Layer]:
    """The fully connected layers of a second head, first to last."""
    return [
        Layer(layer.weight.detach().float().numpy(), layer.bias.detach().float().numpy())
        for layer in head.layers
        if isinstance(layer, nn.Linear)
    ]
