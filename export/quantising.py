"""A feature graph to 8 bits: what rounding does to each layer, which of them stay in float, and the graph."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from flawline.export.calibrated import Calibrated
from flawline.export.fitting import Say
from flawline.export.quantise import quantise
from flawline.export.sensitivity import layers_to_keep, sensitivity
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.precisions import Quantised

CALIBRATION_IMAGES = 48
"""Images that the graph is observed on, at most."""

SENSITIVITY_IMAGES = 4
"""Others, on which its layers are compared."""

_NAMED_LAYERS = 3


def quantised(
    calibrated: Calibrated,
    precision: Quantised,
    count: int,
    compared: Sequence[npt.NDArray[np.uint8]],
    *,
    in_float: Collection[str] = (),
    threads: int,
    say: Say,
) -> tuple[bytes, facts.Quantisation]:
    """Quantises a feature graph. Layers that are too sensitive stay in float.

    Args:
        calibrated: The graph and what it computed on good frames.
        precision: Which engine it is for.
        count: How many frames these were.
        compared: A few others, uint8, each of the graph's input shape without the batch.
        in_float: Convolutions that stay in float in any case.
        threads: Of ONNX Runtime.
        say: Takes each line that tells what is being done.

    Returns:
        The ONNX file, and what the manifest says of it.

    Raises:
        InputError: The network is quantised already, or the quantiser fails.
        EngineError: ONNX Runtime refuses a graph, or fails while it runs it.
    """
    layers = sensitivity(calibrated, compared, precision, threads=threads)
    rounded = [layer for layer in layers if layer.name not in in_float]
    kept = layers_to_keep(rounded)
    worst = sorted(rounded, key=lambda layer: -layer.worst)[:_NAMED_LAYERS]
    say(
        f"{precision}: most sensitive layers, features in error with that one alone in 8 bits: "
        + ", ".join(f"{layer.name} {layer.worst:.1%}" for layer in worst)
    )
    if kept:
        say(f"{precision}: {len(kept)} of {len(rounded)} convolutions stay in float, too sensitive: {', '.join(kept)}")
    all_kept = {*kept, *in_float}
    report = [
        facts.LayerError(layer=layer.name, relative_error=layer.worst, kept_float=layer.name in all_kept)
        for layer in layers
    ]
    return quantise(calibrated, precision, keep_float=all_kept), facts.Quantisation(
        calibration_images=count, sensitivity=report
    )
