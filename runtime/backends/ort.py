"""ONNX Runtime on a CPU."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import BundleError, EngineError, FlawlineError
from flawline.runtime.extras import LazyModule
from flawline.runtime.memory import require

if TYPE_CHECKING:
    import onnxruntime
else:
    onnxruntime = LazyModule("onnxruntime", "pip install 'flawline[ort]'")

_ERRORS_ONLY = 3


class OrtBackend:
    """Runs a feature graph in ONNX Runtime, reading and writing the buffers in place.

    Args:
        features: Bytes of the ONNX file.
        input_shape: (B, H, W, C) of the uint8 input.
        output_shapes: (B, d, h, w) of each output, in the graph's order.
        threads: Threads that compute.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        EngineError: ONNX Runtime refuses the graph.
        BundleError: The graph does not have these inputs and outputs.
        ResourceError: Inputs and outputs would not fit into memory.
    """

    name = "onnxruntime"

    def __init__(
        self,
        features: bytes,
        input_shape: tuple[int, int, int, int],
        output_shapes: Sequence[tuple[int, int, int, int]],
        *,
        threads: int,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Spinning threads would take the cores from the kernel that follows.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(features, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineError(f"ONNX Runtime refuses the feature graph: {_first_line(error)}") from error
        nodes = [*self._session.get_inputs(), *self._session.get_outputs()]
        _check_signature(nodes, input_shape, output_shapes)
        require(
            math.prod(input_shape) + 4 * sum(map(math.prod, output_shapes)),
            f"a feature graph from {input_shape} to {', '.join(map(str, output_shapes))}",
            "fit with a smaller image size or dimension",
        )
        self.input: npt.NDArray[np.uint8] = np.zeros(input_shape, np.uint8)
        self.outputs: tuple[npt.NDArray[np.float32], ...] = tuple(
            np.zeros(shape, np.float32) for shape in output_shapes
        )
        self._binding = self._session.io_binding()
        binders = [self._binding.bind_input] + [self._binding.bind_output] * len(self.outputs)
        buffers: list[npt.NDArray[Any]] = [self.input, *self.outputs]
        for node, array, bind in zip(nodes, buffers, binders, strict=True):
            bind(node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def infer(self) -> None:
        """Runs the graph on the whole input buffer."""
        if self._session is None:
            raise FlawlineError("the engine is closed; open the bundle again")
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise FlawlineError(f"ONNX Runtime failed on a frame: {_first_line(error)}") from error

    def close(self) -> None:
        """Frees the session; closing again does nothing."""
        self._binding = self._session = None


def _check_signature(
    nodes: Sequence[Any], input_shape: tuple[int, int, int, int], output_shapes: Sequence[tuple[int, int, int, int]]
) -> None:
    """Compares what the graph takes and gives with what the manifest says, before anything of that size is allocated."""
    received = [(node.type, list(node.shape)) for node in nodes]
    expected = [("tensor(uint8)", list(input_shape)), *(("tensor(float)", list(shape)) for shape in output_shapes)]
    fits = (
        len(received) == len(expected)
        and all(
            got_type == want_type
            # Only the batch may be left open: any other dimension would be whatever the manifest makes it.
            and got[1:] == want[1:]
            and (not isinstance(got[0], int) or got[0] == want[0])
            for (got_type, got), (want_type, want) in zip(received, expected, strict=True)
        )
    )
    if not fits:
        raise BundleError(f"the feature graph takes and gives {received}; the manifest says {expected}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
