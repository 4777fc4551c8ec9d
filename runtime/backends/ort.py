"""ONNX Runtime on a CPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import BundleError, FlawlineError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnxruntime
else:
    onnxruntime = LazyModule("onnxruntime", "pip install 'flawline[ort]'")

_ERRORS_ONLY = 3
_ELEMENTS = {np.uint8: "tensor(uint8)", np.float32: "tensor(float)"}


class OrtBackend:
    """Runs a feature graph in ONNX Runtime, reading and writing the buffers in place.

    Args:
        features: Bytes of the ONNX file.
        input_shape: (B, H, W, C) of the uint8 input.
        output_shapes: (B, d, h, w) of each output, in the graph's order.
        threads: Threads that compute.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BundleError: ONNX Runtime refuses the graph, or the graph does not have these inputs and outputs.
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
            raise BundleError(f"ONNX Runtime refuses the feature graph: {_first_line(error)}") from error
        self.input: npt.NDArray[np.uint8] = np.zeros(input_shape, np.uint8)
        self.outputs: tuple[npt.NDArray[np.float32], ...] = tuple(
            np.zeros(shape, np.float32) for shape in output_shapes
        )
        self._check_signature()
        self._binding = self._session.io_binding()
        nodes = [*self._session.get_inputs(), *self._session.get_outputs()]
        binders = [self._binding.bind_input] + [self._binding.bind_output] * len(self.outputs)
        for node, array, bind in zip(nodes, self._buffers(), binders, strict=True):
            bind(node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def infer(self) -> None:
        """Runs the graph on the whole input buffer."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise FlawlineError(f"ONNX Runtime failed on a frame: {_first_line(error)}") from error

    def close(self) -> None:
        """Frees the session."""
        del self._binding, self._session

    def _buffers(self) -> list[npt.NDArray[Any]]:
        return [self.input, *self.outputs]

    def _check_signature(self) -> None:
        nodes = [*self._session.get_inputs(), *self._session.get_outputs()]
        received = [(node.type, list(node.shape)) for node in nodes]
        expected = [(_ELEMENTS[array.dtype.type], list(array.shape)) for array in self._buffers()]
        fits = len(received) == len(expected) and all(
            got_type == want_type
            and len(got) == len(want)
            # A dimension with a name, as the batch has, takes any number.
            and all(not isinstance(a, int) or a == b for a, b in zip(got, want, strict=True))
            for (got_type, got), (want_type, want) in zip(received, expected, strict=True)
        )
        if not fits:
            raise BundleError(f"the feature graph takes and gives {received}; the manifest says {expected}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
