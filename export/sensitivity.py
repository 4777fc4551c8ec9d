"""What each convolution's 8 bits cost: the error of the features when that layer alone is quantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.export.calibrated import open_session, run_session
from flawline.export.quantise import quantise_alone
from flawline.runtime.errors import InputError
from flawline.runtime.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto, NodeProto

    from flawline.export.calibrated import Calibrated
    from flawline.runtime.precisions import Precision, Quantised

# A layer that alone moves the features by more than this is worth keeping in float, if it is cheap.
WORST_ERROR = 0.1
# Of the network's multiply-accumulates, those that may stay in float: they run three to six times slower there.
FLOAT_SHARE = 0.05


@dataclass(frozen=True)
class Layer:
    """One convolution in the report.

    Attributes:
        name: Of the node.
        errors: Relative L2 error of each output of the graph, finest first, with this layer alone in 8 bits.
        share: Of the network's multiply-accumulates, 0 to 1.
    """

    name: str
    errors: tuple[float, ...]
    share: float

    @property
    def worst(self) -> float:
        """Largest of the errors."""
        return max(self.errors)


def sensitivity(
    calibrated: Calibrated, frames: Sequence[npt.NDArray[np.uint8]], precision: Quantised, *, threads: int = 1
) -> list[Layer]:
    """Quantises one convolution after the other and compares the features with those of the float graph.

    Args:
        calibrated: The graph and what it computed on good frames.
        frames: A few good frames other than those, uint8, each of the graph's input shape without the batch.
        precision: Which engine the graph is for; it is run in ONNX Runtime here.
        threads: Of ONNX Runtime.

    Returns:
        The convolutions in the order of the graph.

    Raises:
        InputError: There are no frames.
        EngineError: ONNX Runtime refuses a graph, or fails while it runs it.
    """
    if not len(frames):
        raise InputError("no frames to compare features on; expected a few good images")
    batch = np.stack(frames)
    exact = _features(calibrated.model.SerializeToString(), batch, "fp32", threads)
    products = _products(calibrated.model, calibrated.convolutions)
    layers = []
    for node, share in progress(
        list(zip(calibrated.convolutions, products / products.sum(), strict=True)), label="comparing", unit="layer"
    ):
        rounded = _features(quantise_alone(calibrated, precision, node.name), batch, precision, threads)
        layers.append(
            Layer(
                name=node.name,
                errors=tuple(
                    float(np.linalg.norm(got - want) / max(float(np.linalg.norm(want)), np.finfo(np.float32).tiny))
                    for got, want in zip(rounded, exact, strict=True)
                ),
                share=float(share),
            )
        )
    return layers


def layers_to_keep(
    layers: Sequence[Layer], *, worst_error: float = WORST_ERROR, float_share: float = FLOAT_SHARE
) -> list[str]:
    """Names of the convolutions to leave in float, the most harmful first.

    A layer is kept if its error alone is above `worst_error` and if it does not raise the multiply-accumulates of those
    kept above `float_share` of the network's.
    """
    kept, share = [], 0.0
    for layer in sorted(layers, key=lambda layer: -layer.worst):
        if layer.worst > worst_error and share + layer.share <= float_share:
            kept.append(layer.name)
            share += layer.share
    return kept


def _features(
    model: bytes, batch: npt.NDArray[np.uint8], precision: Precision, threads: int
) -> list[npt.NDArray[np.float32]]:
    return run_session(open_session(model, threads, precision=precision), None, batch)


def _products(model: ModelProto, convolutions: Sequence[NodeProto]) -> npt.NDArray[np.int64]:
    """Multiply-accumulates of each convolution for one frame: its weights times its output's positions."""
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    positions = {
        value.name: int(np.prod([size.dim_value for size in value.type.tensor_type.shape.dim[2:]]))
        for value in (*model.graph.value_info, *model.graph.output)
    }
    return np.array([weights[node.input[1]] * positions[node.output[0]] for node in convolutions], np.int64)
