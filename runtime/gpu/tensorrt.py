"""TensorRT on a GPU: the engine of Jetsons, built beforehand on the device that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flawline.runtime.backends.buffers import InputShape, OutputShapes, Port, check_signature
from flawline.runtime.errors import BundleError, EngineError, FlawlineError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.tensorrt_log import open_log, starting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import tensorrt

    from flawline.runtime.bundle.manifest import AnyManifest
    from flawline.runtime.gpu.engine_cache import Engine
else:
    tensorrt = LazyModule("tensorrt", "pip install 'flawline[tensorrt]'; on a Jetson it comes with JetPack")

# Work in the default stream comes before work in any other, and nothing of it is captured.
_DEFAULT_STREAM = 0
_DTYPES = {"FLOAT": "float32", "HALF": "float16"}


class TensorRtEngine:
    """Runs a built engine on memory of its owner. The CUDA context of that memory must be current in all calls.

    It is run once at the start, on whatever the input holds: TensorRT finishes its set-up then, which a CUDA graph could
    not capture.

    Args:
        engine: Built for this device and this TensorRT.
        manifest: Of the bundle, in the engine's precision.
        batch: Frames that are run at once.
        input_address: See `GpuEngine.input`.
        output_addresses: See `GpuEngine.outputs`.

    Attributes:
        See `GpuEngine`.

    Raises:
        MissingExtraError: TensorRT is not installed.
        DeviceError: TensorRT does not work with this driver or GPU.
        EngineError: TensorRT refuses the engine, or its memory would not suffice.
        BundleError: The engine does not have the inputs and outputs of the manifest.
        FlawlineError: It failed.
    """

    name = "tensorrt"

    def __init__(
        self, engine: Engine, manifest: AnyManifest, batch: int, input_address: int, output_addresses: Sequence[int]
    ) -> None:
        self.input, self.outputs = input_address, tuple(output_addresses)
        # What an accelerator does is no work of a CUDA stream: https://github.com/NVIDIA/TensorRT/issues/3524
        self.capturable = engine.options.dla_core is None
        self._log = open_log()
        self._context: Any = None
        self._engine: Any = None
        self._runtime: Any = None
        try:
            self._open(engine, manifest, batch)
            self.enqueue(_DEFAULT_STREAM)
        except BaseException:
            # Now, while its memory is there: what was raised holds this object.
            self.close()
            raise

    def _open(self, engine: Engine, manifest: AnyManifest, batch: int) -> None:
        with starting(self._log):
            self._runtime = tensorrt.Runtime(self._log)
        if engine.options.dla_core is not None:
            self._runtime.DLA_core = engine.options.dla_core
        self._engine = self._runtime.deserialize_cuda_engine(engine.plan)
        if self._engine is None:
            raise EngineError(f"TensorRT refuses the engine: {self._log.reason()}; delete it and build it again")
        check_ports(*_ports(self._engine), manifest, batch)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"TensorRT cannot get the engine ready: {self._log.reason()}")
        names = [manifest.network.input, *(output.name for output in manifest.network.outputs)]
        addresses = zip(names, (self.input, *self.outputs), strict=True)
        bound = [self._context.set_tensor_address(name, address) for name, address in addresses]
        if not all(bound) or not self._context.set_input_shape(names[0], shapes(manifest, batch)[0]):
            raise EngineError(f"TensorRT refuses a batch of {batch} or its memory: {self._log.reason()}")

    def enqueue(self, stream: int) -> None:
        """Launches the network on a CUDA stream and returns at once; see `GpuEngine.enqueue`."""
        if self._context is None:
            raise FlawlineError("the engine is closed; open the bundle again")
        if not self._context.execute_async_v3(stream):
            raise FlawlineError(f"TensorRT failed on a frame: {self._log.reason()}")

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        # One by one: each lives on memory of the next.
        self._context = None
        self._engine = None
        self._runtime = None


def shapes(manifest: AnyManifest, batch: int) -> tuple[InputShape, OutputShapes]:
    """Shapes of a feature graph's uint8 input and float32 outputs, for as many frames."""
    frame = manifest.input
    size = (frame.height, frame.width)
    input_shape = (batch, frame.channels, *size) if frame.layout == "nchw" else (batch, *size, frame.channels)
    outputs = zip(manifest.output_channels, manifest.network.outputs, strict=True)
    return input_shape, [(batch, channels, output.height, output.width) for channels, output in outputs]


def check_ports(inputs: Mapping[str, Port], outputs: Mapping[str, Port], manifest: AnyManifest, batch: int) -> None:
    """Compares what a graph takes and gives, by name, with what the manifest says.

    Raises:
        BundleError: They differ.
    """
    names = [output.name for output in manifest.network.outputs]
    if [*inputs] != [manifest.network.input] or sorted(outputs) != sorted(names):
        raise BundleError(
            f"the feature graph takes {', '.join(inputs)} and gives {', '.join(outputs)}; the manifest says "
            f"{manifest.network.input} and {', '.join(names)}"
        )
    check_signature(
        [*inputs.values()],
        [outputs[name] for name in names],
        *shapes(manifest, batch),
        open_size=manifest.web is not None,
    )


def port(dtype: Any, shape: Sequence[int]) -> Port:
    """An input or output as TensorRT declares it."""
    return Port(_DTYPES.get(dtype.name, dtype.name.lower()), tuple(None if size < 0 else size for size in shape))


def _ports(engine: Any) -> tuple[dict[str, Port], dict[str, Port]]:
    """Inputs and outputs of an engine, by name."""
    inputs: dict[str, Port] = {}
    outputs: dict[str, Port] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        side = inputs if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT else outputs
        side[name] = port(engine.get_tensor_dtype(name), engine.get_tensor_shape(name))
    return inputs, outputs
