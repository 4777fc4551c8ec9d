"""What a feature graph computes on good frames: all that its quantisation needs to know of them, collected once."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.export.histogram import Histogram
from flawline.export.normalisation import subtract_one_number
from flawline.export.rounding import Floats, patches, round_weight
from flawline.runtime.errors import EngineError, InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.memory import require
from flawline.runtime.precisions import Precision
from flawline.runtime.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import onnx
    import onnxruntime
    import threadpoolctl
    from onnx import ModelProto, NodeProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    onnxruntime = LazyModule("onnxruntime", "pip install 'flawline[ort]'")
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[fit]'")

_PATCHES_PER_FRAME = 64
_GOLDEN_RATIO = 0.6180339887498949
_BYTES_PER_RUN = 1 << 28
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Calibrated:
    """A feature graph and what it computed on good frames.

    Attributes:
        model: The float32 feature graph, centred on a whole number, with the shapes of its tensors.
        histograms: Of the values of every float tensor that a node gives, by name.
        grams: float32 (groups, taps, taps) by name of the convolution's output: products of its patches, summed.
    """

    model: ModelProto
    histograms: Mapping[str, Histogram]
    grams: Mapping[str, Floats]

    @cached_property
    def convolutions(self) -> list[NodeProto]:
        """Those whose weights are constant."""
        return _convolutions(self.model)

    @cached_property
    def rounded(self) -> dict[str, tuple[npt.NDArray[np.int8], Floats]]:
        """Weights in 8 bits and their scales (see `round_weight`), by name of the convolution's output."""
        weights = _constants(self.model)
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            return {
                node.output[0]: round_weight(weights[node.input[1]], self.grams.get(node.output[0]))
                for node in progress(self.convolutions, label="rounding", unit="layer")
            }

    def ranges(self, *, symmetric: bool) -> dict[str, tuple[float, float]]:
        """The best range of every tensor (see `Histogram.best_range`)."""
        return self._symmetric_ranges if symmetric else self._ranges

    @cached_property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        return {name: histogram.best_range(symmetric=False) for name, histogram in self.histograms.items()}

    @cached_property
    def _symmetric_ranges(self) -> dict[str, tuple[float, float]]:
        return {name: histogram.best_range(symmetric=True) for name, histogram in self.histograms.items()}


def calibrate(features: bytes, frames: Iterable[npt.NDArray[np.uint8]], count: int, *, threads: int = 1) -> Calibrated:
    """Runs a feature graph on good frames.

    Args:
        features: Bytes of the ONNX file: float32, with the uint8 input `frame`.
        frames: uint8, each of the graph's input shape without the batch.
        count: How many there are, for the progress bar.
        threads: Of ONNX Runtime; the result is the same for any number.

    Raises:
        InputError: There are no frames or no convolutions, a frame is of another shape, or a tensor is not finite.
        EngineError: ONNX Runtime refuses the graph, or fails while it runs it.
        ResourceError: Memory would not suffice.
    """
    model = onnx.load_from_string(features)
    subtract_one_number(model.graph)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    _name_nodes(model)
    weights = _constants(model)
    readers = defaultdict(list)
    taps = []
    for node in _convolutions(model):
        readers[node.input[0]].append(node)
        taps.append((_groups(node), weights[node.input[1]][0].size))
    if not taps:
        raise InputError("the network has no convolution of constant weights: there is nothing to quantise")
    require(
        sum(4 * groups * size**2 for groups, size in taps) + 3 * 8 * max(groups * size**2 for groups, size in taps),
        f"calibrating {len(taps)} convolutions",
        "take a smaller network, or leave it in fp32",
    )
    shape = tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:])
    histograms: dict[str, Histogram] = defaultdict(Histogram)
    grams: dict[str, Floats] = {}
    tensors = _Tensors(model, threads)
    # More BLAS threads would not be quicker on products of this size, and would change the sums.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        for index, frame in enumerate(progress(frames, total=count, label="observing")):
            if frame.shape != shape or frame.dtype != np.uint8:
                raise InputError(f"calibration frame {index} is {frame.dtype} {frame.shape}; expected uint8 {shape}")
            for name, values in tensors.run(frame):
                if not np.isfinite(values).all():
                    raise InputError(
                        f"tensor {name} holds NaN or infinity on calibration frame {index}; expected finite features: "
                        "check the network's weights, mean and std"
                    )
                histograms[name].add(values)
                for node in readers[name]:
                    shift = index * _GOLDEN_RATIO % 1
                    seen = patches(node, weights[node.input[1]].shape, values, _PATCHES_PER_FRAME, shift)
                    if seen is not None:
                        grams[node.output[0]] = grams.get(node.output[0], 0) + seen.transpose(0, 2, 1) @ seen
    if not histograms:
        raise InputError("no calibration frames; expected good images")
    return Calibrated(model, dict(histograms), grams)


def open_session(
    features: bytes, threads: int, what: str = "the feature graph", *, precision: Precision = "fp32"
) -> onnxruntime.InferenceSession:
    """Opens a graph in ONNX Runtime, for any batch and any of its tensors.

    Args:
        features: Bytes of the ONNX file.
        threads: Threads that compute.
        what: What messages call the file.
        precision: That of the graph; see `OrtBackend`.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    if precision == "int8-tensorrt":
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(features, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f"ONNX Runtime refuses {what}: {reason}") from error


def run_session(
    session: onnxruntime.InferenceSession,
    outputs: list[str] | None,
    batch: npt.NDArray[np.uint8],
    what: str = "the feature graph",
) -> list[npt.NDArray[Any]]:
    """Runs a graph that `open_session` opened.

    Args:
        session: The graph, of one input.
        outputs: Names of the tensors that are wanted; the graph's outputs if None.
        batch: uint8, of the input's shape.
        what: What messages call the file.

    Returns:
        The tensors, in the order of their names.

    Raises:
        EngineError: ONNX Runtime fails.
    """
    try:
        values: list[npt.NDArray[Any]] = session.run(outputs, {session.get_inputs()[0].name: batch})
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f"ONNX Runtime fails while it runs {what}: {reason}") from error
    return values


class _Tensors:
    """Computes every float tensor of a graph, a bounded number of bytes at a time."""

    def __init__(self, model: ModelProto, threads: int) -> None:
        computed = {name: None for node in model.graph.node for name in node.output}
        sizes = {
            value.name: 4 * int(np.prod([size.dim_value or 1 for size in value.type.tensor_type.shape.dim]))
            for value in (*model.graph.value_info, *model.graph.output)
            if value.name in computed and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
        self._parts: list[list[str]] = [[]]
        total = 0
        for name, size in sizes.items():
            total += size
            if total > _BYTES_PER_RUN and self._parts[-1]:
                self._parts.append([])
                total = size
            self._parts[-1].append(name)
        observed = onnx.ModelProto()
        observed.CopyFrom(model)
        del observed.graph.output[:]
        observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sizes)
        self._session = open_session(observed.SerializeToString(), threads)

    def run(self, frame: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Floats]]:
        """Name and values of each tensor for one frame."""
        for part in self._parts:
            yield from zip(part, run_session(self._session, part, frame[None]), strict=True)


def _name_nodes(model: ModelProto) -> None:
    """Gives nodes without a name of their own that of their output, so that layers can be told apart."""
    names = Counter(node.name for node in model.graph.node)
    for node in model.graph.node:
        if not node.name or names[node.name] > 1:
            node.name = node.output[0]


def _convolutions(model: ModelProto) -> list[NodeProto]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants]


def _constants(model: ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _groups(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
