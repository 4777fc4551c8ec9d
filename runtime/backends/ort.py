"""ONNX Runtime on a CPU."""

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from flawline.runtime.backends.buffers import InputShape, OutputShapes, Port, allocate, check_signature
from flawline.runtime.errors import EngineError, FlawlineError
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import Precision

if TYPE_CHECKING:
    import onnxruntime
else:
    onnxruntime = LazyModule("onnxruntime", "pip install 'flawline[ort]'")

_ERRORS_ONLY = 3
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OrtBackend:
    """Runs a feature graph in ONNX Runtime, reading and writing the buffers in place.

    Args:
        features: Bytes of the ONNX file.
        input_shape: Of the uint8 input, (B, H, W, C) or (B, C, H, W).
        output_shapes: (B, d, h, w) of each output, in the graph's order.
        threads: Threads that compute.
        precision: `int8-tensorrt` is computed as the file is written, float between its roundings, as TensorRT does; fused
            for this processor it would be another arithmetic, on some with sums that saturate. Others are ignored: this
            engine computes in the types that the file names.
        open_size: Whether the graph may leave height and width open.

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
        input_shape: InputShape,
        output_shapes: OutputShapes,
        *,
        threads: int,
        precision: Precision = "fp32",
        open_size: bool = False,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Spinning threads would take the cores from the kernel that follows.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if precision == "int8-tensorrt":
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(features, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineError(f"ONNX Runtime refuses the feature graph: {_first_line(error)}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_signature(
            [_port(node) for node in inputs],
            [_port(node) for node in outputs],
            input_shape,
            output_shapes,
            open_size=open_size,
        )
        self.input, self.outputs = allocate(input_shape, output_shapes)
        self._binding = self._session.io_binding()
        _bind(self._binding.bind_input, inputs[0], self.input)
        for node, array in zip(outputs, self.outputs, strict=True):
            _bind(self._binding.bind_output, node, array)

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


def _bind(bind: Any, node: Any, array: npt.NDArray[Any]) -> None:
    bind(node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _port(node: Any) -> Port:
    shape = tuple(length if isinstance(length, int) else None for length in node.shape)
    return Port(_DTYPES.get(node.type, node.type), shape)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
