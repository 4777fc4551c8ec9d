"""Error and saliency of images by a trained autoencoder: its ONNX graph, run by an engine of the runtime."""

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.paper.saliency_comparison import Maps
from flawline.detectors.autoencoder import Autoencoder
from flawline.export.autoencoder import export_autoencoder
from flawline.export.autoencoder_graph import Output, compose_autoencoder
from flawline.runtime.backends import open_backend, preferred_engine
from flawline.runtime.memory import require
from flawline.runtime.progress import progress

_OUTPUTS: tuple[Output, ...] = ("reconstruction", "error", "saliency")
_BATCH = 64


def graph_of(network: Autoencoder) -> bytes:
    """Exports a network: the ONNX file from grey frames to what `Maps` holds.

    Args:
        network: Trained on grey images; left as it is.
    """
    return compose_autoencoder(export_autoencoder(network), _OUTPUTS)


def maps_of(graph: bytes, images: npt.NDArray[np.uint8], *, threads: int) -> Maps:
    """Runs an exported network.

    Args:
        graph: See `graph_of`.
        images: uint8 (N, height, width), of the network's size.
        threads: Threads of the engine.

    Raises:
        MissingExtraError: No engine is installed.
        ResourceError: The maps would not fit into memory.
    """
    count, height, width = images.shape
    require(len(_OUTPUTS) * 4 * images.size, f"maps of {count} images", "take fewer")
    maps = Maps(*(np.empty(images.shape, np.float32) for _ in _OUTPUTS))
    shapes = [(_BATCH, 1, height, width)] * len(_OUTPUTS)
    engine = open_backend(preferred_engine("fp32"), graph, (_BATCH, height, width, 1), shapes, threads=threads)
    try:
        for start in progress(range(0, count, _BATCH), label="maps", unit="batch"):
            batch = images[start : start + _BATCH]
            # Behind the last image those of the batch before stay: they are computed once more and left.
            engine.input[: len(batch), :, :, 0] = batch
            engine.infer()
            for kept, output in zip(maps, engine.outputs, strict=True):
                kept[start : start + len(batch)] = output[: len(batch), 0]
    finally:
        engine.close()
    return maps
