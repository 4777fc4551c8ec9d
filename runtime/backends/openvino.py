"""OpenVINO on a CPU: the fastest engine on x86, most of all where the processor has matrix units (AMX)."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flawline.runtime.backends import onnx_file
from flawline.runtime.backends.buffers import InputShape, OutputShapes, Port, allocate, check_signature
from flawline.runtime.errors import EngineError, FlawlineError
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import Precision

if TYPE_CHECKING:
    import openvino
else:
    # It sends a message to Google Analytics when it is imported, unless the package that does so is missing.
    openvino = LazyModule("openvino", "pip install 'flawline[openvino]'", without=("openvino_telemetry",))

_DTYPES = {"u8": "uint8", "f32": "float32"}

# The lines of a message that say where in OpenVINO's source it comes from, and in what it was wrapped on the way.
_ORIGIN = re.compile(
    r"Exception from |Check '|While validating|FrontEnd API failed|Model wasn't fully converted|.* with a message:|Summary:|$"
)


class OpenVinoBackend:
    """Runs a feature graph in OpenVINO, reading and writing the buffers in place.

    Args:
        features: Bytes of the ONNX file.
        input_shape: Of the uint8 input, (B, H, W, C) or (B, C, H, W).
        output_shapes: (B, d, h, w) of each output, in the graph's order.
        threads: Threads that compute.
        precision: With `bf16`, what the file keeps in fp32 is computed in bf16; with any other, as the file says.
        open_size: Whether the graph may leave height and width open.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineError: OpenVINO cannot be started or refuses the graph, or the processor cannot compute in bf16.
        BundleError: The graph does not have these inputs and outputs.
        ResourceError: Inputs and outputs would not fit into memory.
    """

    name = "openvino"

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
        try:
            core = openvino.Core()
            capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot be started: {_reason(error)}") from error
        if precision == "bf16" and "BF16" not in capabilities:
            raise EngineError(
                "this processor cannot compute in bf16, which precision 'bf16' asks for; take fp32 or int8"
            )
        try:
            model = _read(features)
        except Exception as error:
            raise EngineError(f"OpenVINO refuses the feature graph: {_reason(error)}") from error
        check_signature(_ports(model.inputs), _ports(model.outputs), input_shape, output_shapes, open_size=open_size)
        self.input, self.outputs = allocate(input_shape, output_shapes)
        try:
            model.reshape({0: list(input_shape)})
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    # Left alone, it computes in bf16 wherever the processor can.
                    "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": 1,
                    "PERFORMANCE_HINT": "LATENCY",
                    # Pinned, every process would sit on the same first cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except Exception as error:
            raise EngineError(f"OpenVINO refuses the feature graph: {_reason(error)}") from error
        # Once more, with the batch: what does not follow it would not fit its buffer.
        check_signature(_ports(compiled.inputs), _ports(compiled.outputs), input_shape, output_shapes, open_batch=False)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(0, openvino.Tensor(self.input, shared_memory=True))
        for index, output in enumerate(self.outputs):
            self._request.set_output_tensor(index, openvino.Tensor(output, shared_memory=True))

    def infer(self) -> None:
        """Runs the graph on the whole input buffer."""
        if self._request is None:
            raise FlawlineError("the engine is closed; open the bundle again")
        try:
            # Not shared, the outputs would be copied into new arrays to be returned.
            self._request.infer(share_outputs=True)
        except Exception as error:
            raise FlawlineError(f"OpenVINO failed on a frame: {_reason(error)}") from error

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._request = None


def _read(features: bytes) -> Any:
    """Reads an ONNX file and nothing else: `Core.read_model` would guess among formats, and copy the weights twice."""
    # It would look for missing tensors in the current folder, and not come back from a cycle.
    onnx_file.check(features)
    frontend = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    return frontend.convert(frontend.load(io.BytesIO(features)))


def _ports(nodes: Sequence[Any]) -> list[Port]:
    return [_port(node) for node in nodes]


def _port(node: Any) -> Port:
    dtype, shape = node.get_element_type().get_type_name(), node.get_partial_shape()
    lengths = () if shape.rank.is_dynamic else shape
    return Port(
        _DTYPES.get(dtype, dtype), tuple(length.get_length() if length.is_static else None for length in lengths)
    )


def _reason(error: Exception) -> str:
    """The line of a message that says what is wrong."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    return next((line for line in lines if not _ORIGIN.match(line)), type(error).__name__)
