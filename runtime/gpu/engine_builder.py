"""Builds TensorRT engines from feature graphs, on the device that is to run them.

TensorRT 8.6 to 11 differ in what they offer. What is not in all of them is looked for and never inferred from a version.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from flawline.runtime.backends import onnx_file
from flawline.runtime.errors import EngineError, InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.engine_cache import EngineOptions
from flawline.runtime.gpu.tensorrt import check_ports, port, shapes
from flawline.runtime.gpu.tensorrt_log import one_line, open_log, starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import tensorrt
    import tqdm

    from flawline.runtime.backends.buffers import Port
    from flawline.runtime.bundle.manifest import AnyManifest
    from flawline.runtime.precisions import Precision
else:
    tensorrt = LazyModule("tensorrt", "pip install 'flawline[tensorrt]'; on a Jetson it comes with JetPack")
    tqdm = LazyModule("tqdm", "pip install tqdm")

# What must be allowed, besides fp32, where types are not simply those that the file names.
_ALLOWED: dict[Precision, str | None] = {"fp32": None, "fp16": "FP16", "int8-tensorrt": "INT8"}


class Plan(NamedTuple):
    """A built engine.

    Attributes:
        plan: What TensorRT deserialises.
        timings: What it has measured of layers on this device, for the next engine.
    """

    plan: bytes
    timings: bytes


def require_precision(precision: Precision) -> None:
    """Refuses what TensorRT does not compute in.

    Raises:
        InputError: It does not.
    """
    if precision not in _ALLOWED:
        raise InputError(f"TensorRT does not compute in precision '{precision}'; expected {', '.join(_ALLOWED)}")


def build_plan(
    features: bytes,
    manifest: AnyManifest,
    *,
    batch: int,
    options: EngineOptions,
    timings: bytes = b"",
) -> Plan:
    """Builds an engine; takes from seconds to many minutes, with a bar on standard error if that is a terminal.

    Only where a driver was found: without one, TensorRT ends the process.

    Args:
        features: Bytes of the ONNX file.
        manifest: Of the bundle, in the precision of the file.
        batch: Most frames that the engine takes at once; it is made for that many.
        options: Memory and accelerator.
        timings: What an earlier build left; any bytes that are none are left aside.

    Raises:
        MissingExtraError: TensorRT is not installed.
        DeviceError: TensorRT does not work with this driver or GPU.
        InputError: TensorRT does not compute in this precision, or the device lacks the accelerator.
        EngineError: TensorRT refuses the graph; the message names the layer.
        BundleError: The graph does not have the inputs and outputs of the manifest.
        KeyboardInterrupt: The user has asked for an end.
    """
    precision = manifest.network.precision
    require_precision(precision)
    log = open_log()
    with starting(log):
        builder = tensorrt.Builder(log)
    network = builder.create_network(_network_flags())
    parser = _parse(features, network, log)
    _check_network(network, manifest)
    config = builder.create_builder_config()
    _allow(config, precision)
    _set_options(builder, config, options, precision)
    profile = builder.create_optimization_profile()
    (_, *frame), _ = shapes(manifest, batch)
    # An accelerator takes one size alone.
    least = batch if options.dla_core is not None else 1
    profile.set_shape(manifest.network.input, (least, *frame), (batch, *frame), (batch, *frame))
    config.add_optimization_profile(profile)
    _set_timings(config, timings)
    with _held_interrupts() as interrupted:
        monitor = _monitor(interrupted) if hasattr(tensorrt, "IProgressMonitor") else None
        if monitor is not None:
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise EngineError(f"TensorRT cannot build an engine of the feature graph: {log.reason()}")
    return Plan(bytes(memoryview(plan)), bytes(memoryview(config.get_timing_cache().serialize())))


def _network_flags() -> int:
    """Batches of any size; in some versions they must be asked for, in others there is nothing else."""
    flags = tensorrt.NetworkDefinitionCreationFlag
    return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0


def _parse(features: bytes, network: Any, log: Any) -> Any:
    """Reads the graph into the network; what is returned owns the weights, and must live until the engine is built."""
    try:
        # The parser would read tensors from other files.
        onnx_file.check(features)
    except ValueError as error:
        raise EngineError(f"TensorRT is not given the feature graph: {error}") from error
    parser = tensorrt.OnnxParser(network, log)
    if parser.parse(features):
        return parser
    if not parser.num_errors:
        raise EngineError(f"TensorRT refuses the feature graph: {log.reason()}")
    first = parser.get_error(0)
    layer = (
        f"{first.node_name()} ({first.node_operator()})" if hasattr(first, "node_name") else f"number {first.node()}"
    )
    raise EngineError(f"TensorRT refuses layer {layer} of the feature graph: {one_line(first.desc())}")


def _check_network(network: Any, manifest: AnyManifest) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    check_ports(_ports(inputs), _ports(outputs), manifest, 1)


def _ports(tensors: Iterable[Any]) -> dict[str, Port]:
    return {tensor.name: port(tensor.dtype, tensor.shape) for tensor in tensors}


def _allow(config: Any, precision: Precision) -> None:
    flags, allowed = tensorrt.BuilderFlag, _ALLOWED[precision]
    # fp32 is what the reference computes in; TF32 keeps 10 of its 23 bits.
    config.clear_flag(flags.TF32)
    # Where the flags are gone, types are those of the file.
    if allowed is not None and hasattr(flags, allowed):
        config.set_flag(getattr(flags, allowed))


def _set_options(builder: Any, config: Any, options: EngineOptions, precision: Precision) -> None:
    if options.workspace_mb is not None:
        if options.workspace_mb < 1:
            raise InputError(f"a workspace of {options.workspace_mb} MB; expected 1 or more")
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.dla_core is None:
        return
    if precision == "fp32":
        raise InputError("a deep learning accelerator does not compute in fp32; take fp16 or int8-tensorrt")
    if not 0 <= options.dla_core < builder.num_DLA_cores:
        raise InputError(
            f"deep learning accelerator {options.dla_core} is not there; this device has {builder.num_DLA_cores} of them, "
            "counted from 0"
        )
    config.default_device_type = tensorrt.DeviceType.DLA
    config.DLA_core = options.dla_core
    config.set_flag(tensorrt.BuilderFlag.GPU_FALLBACK)


def _set_timings(config: Any, timings: bytes) -> None:
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):
        # Of another device, another version, or damaged.
        config.set_timing_cache(config.create_timing_cache(b""), False)


@contextmanager
def _held_interrupts() -> Iterator[Callable[[], bool]]:
    """Holds Ctrl-C back until the block is done: an exception that passed through TensorRT would end the process.

    Yields:
        Whether there was one.

    Raises:
        KeyboardInterrupt: There was one.
    """
    seen = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield seen.is_set
        return
    before = signal.signal(signal.SIGINT, lambda *_: seen.set())
    try:
        yield seen.is_set
    finally:
        signal.signal(signal.SIGINT, before)
    if seen.is_set():
        raise KeyboardInterrupt


def _monitor(interrupted: Callable[[], bool]) -> Any:
    """Draws a bar for each phase of a build, those within others below them."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._bars: dict[str, tqdm.tqdm[Any]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._bars[phase_name] = tqdm.tqdm(
                total=num_steps, desc=phase_name, unit="step", file=sys.stderr, disable=None, leave=False
            )

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._bars[phase_name].update()
            return not interrupted()

        def phase_finish(self, phase_name: str) -> None:
            self._bars.pop(phase_name).close()

    return Monitor()
