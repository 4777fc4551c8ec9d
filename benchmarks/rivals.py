"""What the Mahalanobis kernel is measured against: the same distances the usual way, with the full fp32 inverse."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    import onnxruntime
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    onnxruntime = LazyModule("onnxruntime", "pip install 'flawline[ort]'")

Floats = npt.NDArray[np.float32]
_ERRORS_ONLY = 3


def onnx_runtime(threads: int) -> Callable[[Floats, Floats], Floats]:
    """Squared distances z^T S z by ONNX Runtime: MatMul, Mul, ReduceSum.

    The vector stands on the left and the inverse is an input, which is the fastest of the forms that were tried.

    Args:
        threads: Threads of ONNX Runtime.

    Returns:
        A function of z, float32 (P, d), centred, and the inverse S, float32 (P, d, d): float32 (P,).
    """
    nodes = [
        onnx.helper.make_node("MatMul", ["z", "inverse"], ["y"]),
        onnx.helper.make_node("Mul", ["y", "z"], ["products"]),
        onnx.helper.make_node("ReduceSum", ["products", "axes"], ["squared"], keepdims=0),
    ]
    number = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "mahalanobis",
        [
            onnx.helper.make_tensor_value_info("z", number, ["P", 1, "d"]),
            onnx.helper.make_tensor_value_info("inverse", number, ["P", "d", "d"]),
        ],
        [onnx.helper.make_tensor_value_info("squared", number, ["P"])],
        [onnx.numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    # Spinning threads would take the cores from whatever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def squared(z: Floats, inverse: Floats) -> Floats:
        result: Floats = session.run(None, {"z": z[:, None], "inverse": inverse})[0]
        return result

    return squared


def numpy_matmul(z: Floats, inverse: Floats) -> Floats:
    """Squared distances z^T S z by NumPy, on as many threads as it takes.

    Args:
        z: float32 (P, d), centred.
        inverse: float32 (P, d, d).

    Returns:
        float32 (P,).
    """
    squared: Floats = (np.matmul(z[:, None], inverse)[:, 0] * z).sum(1)
    return squared
