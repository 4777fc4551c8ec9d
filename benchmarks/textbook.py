"""The Mahalanobis step as papers and packages write it: the full inverse in fp32, multiplied position by position."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    import onnxruntime
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    onnxruntime = LazyModule("onnxruntime", "pip install 'flawline[ort]'")

_OPSET = 18
_IR_VERSION = 9
_ERRORS_ONLY = 3


def numpy_distances(
    x: NDArray[np.float32], mean: NDArray[np.float32], inverse: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distances sqrt((x - mean)^T inverse (x - mean)) (Defard et al. 2020, equation 2).

    Args:
        x: float32 (P, d), one embedding per position.
        mean: float32 (P, d).
        inverse: float32 (P, d, d), inverses of the covariances.

    Returns:
        float32 (P,).
    """
    centred = x - mean
    squared = np.matmul(centred[:, None], inverse)[:, 0]
    squared *= centred
    return np.asarray(np.sqrt(squared.sum(axis=1)))


class OrtDistances:
    """The same in ONNX Runtime, as one graph of a batched MatMul.

    The inverses are an input that is bound in place, since a graph may not hold more than 2 GB.

    Args:
        mean: float32 (P, d).
        inverse: float32 (P, d, d), C-contiguous; used where it is.
        threads: Threads of the engine.

    Attributes:
        x: float32 (P, d), to be filled before a call.
        out: float32 (P,), the distances of the last call.
    """

    def __init__(self, mean: NDArray[np.float32], inverse: NDArray[np.float32], *, threads: int) -> None:
        positions, dimension = mean.shape
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(
            _graph(positions, dimension), options, providers=["CPUExecutionProvider"]
        )
        self._kept = (np.ascontiguousarray(mean), inverse)
        self.x = np.zeros((positions, dimension), np.float32)
        self.out = np.zeros(positions, np.float32)
        self._binding = self._session.io_binding()
        for name, array in (("x", self.x), ("mean", self._kept[0]), ("inverse", inverse)):
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._binding.bind_output("distances", "cpu", 0, np.float32, self.out.shape, self.out.ctypes.data)

    def __call__(self) -> NDArray[np.float32]:
        """Computes `out` from `x`."""
        self._session.run_with_iobinding(self._binding)
        return self.out


def _graph(positions: int, dimension: int) -> bytes:
    helper = onnx.helper
    shapes = {"x": (positions, dimension), "mean": (positions, dimension), "inverse": (positions, dimension, dimension)}
    row, flat = (
        onnx.numpy_helper.from_array(np.array(shape, np.int64), name)
        for name, shape in (("row", (positions, 1, dimension)), ("flat", (positions, dimension)))
    )
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Reshape", ["centred", "row"], ["rows"]),
        helper.make_node("MatMul", ["rows", "inverse"], ["products"]),
        helper.make_node("Reshape", ["products", "flat"], ["whitened"]),
        helper.make_node("Mul", ["whitened", "centred"], ["terms"]),
        helper.make_node("ReduceSum", ["terms", "axis"], ["squared"], keepdims=0),
        helper.make_node("Sqrt", ["squared"], ["distances"]),
    ]
    graph = helper.make_graph(
        nodes,
        "textbook",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("distances", onnx.TensorProto.FLOAT, (positions,))],
        initializer=[row, flat, axis],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())
