"""All that Flawline does with TensorRT, done with what the bindings of one version declare; `test_tensorrt_api.py` runs it.

A process can import the bindings of one version. The environment names their folder, a bundle, and the file that takes the
lines of our modules that were run.
"""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import msgspec
import pytest

from flawline.runtime import bundle as bundles
from flawline.runtime.bundle.manifest import AnyManifest
from flawline.runtime.errors import BundleError, DeviceError, EngineError, FlawlineError, InputError
from flawline.runtime.gpu import engine_builder, tensorrt, tensorrt_log
from flawline.runtime.gpu.engine_builder import Plan, build_plan
from flawline.runtime.gpu.engine_cache import Engine, EngineOptions
from flawline.runtime.gpu.network import cut_features, cut_manifest
from flawline.runtime.gpu.tensorrt import TensorRtEngine
from flawline.runtime.precisions import Precision
from tests.runtime.gpu.tensorrt_declared import Declared, DeclaredObject, NotDeclaredError, load_bindings
from tests.runtime.reconstructions import reconstruction_bundle

MODULES: tuple[ModuleType, ...] = (engine_builder, tensorrt, tensorrt_log)
BATCH = 4
ON_THE_GPU = EngineOptions()


@pytest.fixture(scope="session")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bindings(Path(os.environ["FLAWLINE_TENSORRT_BINDINGS"]), tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="session")
def bundle() -> bundles.Bundle:
    return bundles.read(os.environ["FLAWLINE_BUNDLE"])


@pytest.fixture(scope="session", autouse=True)
def _lines_run() -> Iterator[None]:
    """Notes every line of `MODULES` that is run."""
    lines: dict[str, set[int]] = {str(module.__file__): set() for module in MODULES}

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in lines:
            return None
        lines[frame.f_code.co_filename].add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    threading.settrace(trace)
    yield
    sys.settrace(before)
    threading.settrace(None)  # type: ignore[arg-type]
    Path(os.environ["FLAWLINE_LINES"]).write_bytes(msgspec.json.encode(lines))


class Rig:
    """TensorRT as declared, with answers that mean that all goes well.

    Attributes:
        api: The module.
        ports: Name, type and shape of the network's input and outputs, as TensorRT is to tell them.
        phases: What became of the steps that a build reported.
    """

    def __init__(self, api: Declared, manifest: AnyManifest, features: bytes) -> None:
        self.api, self._manifest, self._features = api, manifest, features
        network, ((_, *frame), outputs) = manifest.network, tensorrt.shapes(manifest, 1)
        self.ports = [[network.input, api.DataType.UINT8, (-1, *frame)]]
        for output, shape in zip(network.outputs, outputs, strict=True):
            self.ports.append([output.name, api.DataType.FLOAT, (-1, *shape[1:])])
        self.phases: list[bool] = []
        modes, index = api.TensorIOMode, lambda name: [port[0] for port in self.ports].index(name)
        api.answers |= {
            "Builder.num_DLA_cores": 2,
            "Builder.build_serialized_network": lambda network, config: self.report(config) or b"plan",
            "INetworkDefinition.num_inputs": 1,
            "INetworkDefinition.num_outputs": len(self.ports) - 1,
            "INetworkDefinition.get_input": lambda index: self._tensor(index),
            "INetworkDefinition.get_output": lambda index: self._tensor(index + 1),
            "IBuilderConfig.add_optimization_profile": 0,
            "ITimingCache.serialize": b"timings",
            "OnnxParser.num_errors": 1,
            "ParserError.node": 7,
            "ParserError.node_name": "conv_1",
            "ParserError.node_operator": "Conv",
            "ParserError.desc": "not\nsupported (really. In parse at /importer.cpp:12)",
            "ICudaEngine.num_io_tensors": len(self.ports),
            "ICudaEngine.get_tensor_name": lambda number: self.ports[number][0],
            "ICudaEngine.get_tensor_mode": lambda name: modes.OUTPUT if index(name) else modes.INPUT,
            "ICudaEngine.get_tensor_dtype": lambda name: self.ports[index(name)][1],
            "ICudaEngine.get_tensor_shape": lambda name: self.ports[index(name)][2],
        }

    def build(self, precision: Precision = "fp32", options: EngineOptions = ON_THE_GPU, timings: bytes = b"") -> Plan:
        network = msgspec.structs.replace(self._manifest.network, precision=precision)
        manifest = msgspec.structs.replace(self._manifest, network=network)
        return build_plan(self._features, manifest, batch=BATCH, options=options, timings=timings)

    def open(self, options: EngineOptions = ON_THE_GPU) -> TensorRtEngine:
        outputs = range(512, 512 * len(self.ports), 512)
        return TensorRtEngine(Engine(options, b"plan"), self._manifest, BATCH, 256, outputs)

    def failing(self, answer: object, reason: str) -> Callable[..., object]:
        """A call that gives nothing good and tells the logger why."""

        def call(*_: object) -> object:
            log = next(arguments[0] for key, arguments in self.api.calls if key in ("Builder", "Runtime"))
            log.log(self.api.ILogger.WARNING, "a warning")
            log.log(self.api.ILogger.ERROR, reason)
            log.log(self.api.ILogger.INTERNAL_ERROR, "what came of it")
            return answer

        return call

    def report(self, config: DeclaredObject) -> None:
        """Reports the phases of a build, where the version does so."""
        if not hasattr(config, "progress_monitor"):
            return
        config.progress_monitor.phase_start("Building engine", None, 1)
        config.progress_monitor.phase_start("Timing", "Building engine", 2)
        self.phases.extend(config.progress_monitor.step_complete("Timing", step) for step in range(2))
        config.progress_monitor.phase_finish("Timing")
        config.progress_monitor.phase_finish("Building engine")

    def passed(self, key: str) -> list[Any]:
        """The first argument of every call of that name, in order."""
        return [arguments[0] for name, arguments in self.api.calls if name == key]

    def _tensor(self, index: int) -> DeclaredObject:
        name, dtype, shape = self.ports[index]
        return self.api.object("ITensor", name=name, dtype=dtype, shape=shape)


@pytest.fixture
def api(bindings: Any, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """In the place of TensorRT."""
    declared = Declared(bindings)
    for module in MODULES:
        monkeypatch.setattr(module, "tensorrt", declared)
    return declared


@pytest.fixture
def rig(api: Declared, bundle: bundles.Bundle) -> Rig:
    return Rig(api, bundle.manifest, bundle.features)


@pytest.mark.parametrize(
    ("precision", "allowed"),
    [("fp32", None), ("fp16", "FP16"), ("int8-tensorrt", "INT8")],
    ids=["fp32", "fp16", "int8"],
)
def test_an_engine_is_built_with_what_its_precision_needs(rig: Rig, precision: Precision, allowed: str | None) -> None:
    assert rig.build(precision, timings=b"earlier") == Plan(b"plan", b"timings")
    flags = rig.api.BuilderFlag
    needed = [getattr(flags, allowed)] if allowed is not None and hasattr(flags, allowed) else []
    assert rig.passed("IBuilderConfig.set_flag") == needed
    assert rig.passed("IBuilderConfig.clear_flag") == [flags.TF32]
    assert rig.passed("IBuilderConfig.create_timing_cache") == [b"earlier"]
    ((name, *shapes),) = (arguments for key, arguments in rig.api.calls if key == "IOptimizationProfile.set_shape")
    frame = rig.ports[0][2][1:]
    assert (name, shapes) == ("frame", [(1, *frame), (BATCH, *frame), (BATCH, *frame)])
    assert rig.phases == ([True, True] if hasattr(rig.api, "IProgressMonitor") else [])


def test_types_are_those_of_the_file_where_no_flag_allows_others(rig: Rig) -> None:
    """As from TensorRT 11 on, where a network without flags is strongly typed and takes any batch."""
    major = int(rig.api.__version__.partition(".")[0])
    assert hasattr(rig.api.BuilderFlag, "FP16") == hasattr(rig.api.BuilderFlag, "INT8") == (major < 11)
    rig.build("fp16")
    assert rig.passed("Builder.create_network") == [0 if major >= 11 else 1]


def test_a_precision_of_another_engine_is_refused(rig: Rig) -> None:
    with pytest.raises(InputError, match="does not compute in precision 'bf16'; expected fp32, fp16, int8-tensorrt"):
        rig.build("bf16")


def test_an_engine_is_built_in_any_thread(rig: Rig) -> None:
    built: list[Plan] = []
    thread = threading.Thread(target=lambda: built.append(rig.build()))
    thread.start()
    thread.join()
    assert built == [Plan(b"plan", b"timings")]


def test_a_workspace_is_bounded(rig: Rig) -> None:
    rig.build(options=EngineOptions(workspace_mb=64))
    limits = [arguments for key, arguments in rig.api.calls if key == "IBuilderConfig.set_memory_pool_limit"]
    assert limits == [(rig.api.MemoryPoolType.WORKSPACE, 64 << 20)]
    with pytest.raises(InputError, match="a workspace of 0 MB; expected 1 or more"):
        rig.build(options=EngineOptions(workspace_mb=0))


def test_an_accelerator_takes_one_size_and_leaves_the_rest_to_the_gpu(rig: Rig) -> None:
    rig.build("fp16", EngineOptions(dla_core=1))
    assert rig.passed("IBuilderConfig.DLA_core") == [1]
    assert rig.passed("IBuilderConfig.default_device_type") == [rig.api.DeviceType.DLA]
    assert rig.api.BuilderFlag.GPU_FALLBACK in rig.passed("IBuilderConfig.set_flag")
    ((_, *shapes),) = (arguments for key, arguments in rig.api.calls if key == "IOptimizationProfile.set_shape")
    assert {shape[0] for shape in shapes} == {BATCH}


@pytest.mark.parametrize(
    ("precision", "core", "message"),
    [
        ("fp32", 0, "does not compute in fp32; take fp16 or int8-tensorrt"),
        ("fp16", 2, "accelerator 2 is not there; this device has 2 of them"),
        ("fp16", -1, "accelerator -1 is not there"),
    ],
)
def test_an_accelerator_that_cannot_be_had_is_refused(rig: Rig, precision: Precision, core: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rig.build(precision, EngineOptions(dla_core=core))


def test_timings_of_another_device_are_left_aside(rig: Rig) -> None:
    accepted = iter((False, True))
    rig.api.answers["IBuilderConfig.set_timing_cache"] = lambda cache, ignore_mismatch: next(accepted)
    rig.build(timings=b"foreign")
    assert rig.passed("IBuilderConfig.create_timing_cache") == [b"foreign", b""]


def test_timings_that_are_none_are_left_aside(rig: Rig) -> None:
    caches = iter((None, rig.api.object("ITimingCache")))
    rig.api.answers["IBuilderConfig.create_timing_cache"] = lambda timings: next(caches)
    rig.build(timings=b"damaged")
    assert len(rig.passed("IBuilderConfig.set_timing_cache")) == 1


def test_a_refused_layer_is_named_with_the_reason(rig: Rig) -> None:
    rig.api.answers["OnnxParser.parse"] = False
    with pytest.raises(EngineError) as caught:
        rig.build()
    named = "conv_1 (Conv)" if hasattr(rig.api._bindings.ParserError, "node_name") else "number 7"
    assert str(caught.value) == f"TensorRT refuses layer {named} of the feature graph: not supported (really)"


def test_a_graph_that_is_refused_as_a_whole_has_the_reason(rig: Rig) -> None:
    rig.api.answers |= {"OnnxParser.parse": rig.failing(False, "no memory"), "OnnxParser.num_errors": 0}
    with pytest.raises(EngineError, match=r"TensorRT refuses the feature graph: no memory$"):
        rig.build()


def test_a_file_that_might_lead_elsewhere_is_not_handed_on(rig: Rig, bundle: bundles.Bundle) -> None:
    with pytest.raises(EngineError, match="TensorRT is not given the feature graph: it is no ONNX file"):
        build_plan(b"none", bundle.manifest, batch=1, options=ON_THE_GPU)
    assert not rig.passed("OnnxParser.parse")


def test_the_parser_lives_until_the_engine_is_built(rig: Rig) -> None:
    """The weights of the network are in its memory."""

    def build(network: object, config: object) -> bytes:
        living = [one.declared.__name__ for one in gc.get_objects() if type(one) is DeclaredObject]
        return b"plan" if "OnnxParser" in living else b"plan without weights"

    rig.api.answers["Builder.build_serialized_network"] = build
    assert rig.build().plan == b"plan"


@pytest.mark.parametrize("use", [Rig.build, Rig.open], ids=["network", "engine"])
def test_other_outputs_than_those_of_the_manifest_are_refused(rig: Rig, use: Callable[[Rig], object]) -> None:
    rig.ports[-1][0] = "another"
    with pytest.raises(
        BundleError, match=r"takes frame and gives features_0, another; the manifest says frame and .*_1"
    ):
        use(rig)


@pytest.mark.parametrize("use", [Rig.build, Rig.open], ids=["network", "engine"])
def test_outputs_of_another_type_are_refused(rig: Rig, use: Callable[[Rig], object]) -> None:
    rig.ports[-1][1] = rig.api.DataType.HALF
    with pytest.raises(BundleError, match=r"float16 \(.*; the manifest says"):
        use(rig)


def test_a_failed_build_has_the_reason(rig: Rig) -> None:
    rig.api.answers["Builder.build_serialized_network"] = rig.failing(None, "no tactic\nfits. In build at /b.cpp:1")
    with pytest.raises(EngineError, match=r"TensorRT cannot build an engine of the feature graph: no tactic fits$"):
        rig.build()


def test_an_interrupted_build_ends_and_then_raises(rig: Rig) -> None:
    def build(network: object, config: DeclaredObject) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        rig.report(config)

    handler = signal.getsignal(signal.SIGINT)
    rig.api.answers["Builder.build_serialized_network"] = build
    with pytest.raises(KeyboardInterrupt):
        rig.build()
    assert not any(rig.phases)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_engine_is_run_once_before_it_may_be_captured(rig: Rig) -> None:
    engine = rig.open()
    assert (engine.input, engine.outputs) == (256, (512, 1024))
    addresses = {name: address for key, (name, address) in _pairs(rig, "IExecutionContext.set_tensor_address")}
    assert addresses == {"frame": 256, "features_0": 512, "features_1": 1024}
    shapes = [shape for key, (name, shape) in _pairs(rig, "IExecutionContext.set_input_shape")]
    assert shapes == [(BATCH, *rig.ports[0][2][1:])]
    assert rig.passed("IExecutionContext.execute_async_v3") == [0]
    engine.enqueue(7)
    assert rig.passed("IExecutionContext.execute_async_v3") == [0, 7]


@pytest.mark.parametrize(("kind", "output", "channels"), [("pse", "reconstruction", 3), ("saliency", "saliency", 1)])
def test_the_output_that_the_map_of_a_reconstruction_is_made_of_is_bound(
    kind: str, output: str, channels: int, api: Declared, tmp_path: Path
) -> None:
    made = reconstruction_bundle(tmp_path / "made.flaw", channels=3, layout="nchw").with_map(kind)
    rig = Rig(api, cut_manifest(made.manifest), cut_features(made))
    assert [(port[0], port[2]) for port in rig.ports] == [("frame", (-1, 3, 24, 20)), (output, (-1, channels, 24, 20))]
    assert rig.build().plan == b"plan"
    engine = rig.open()
    assert (engine.input, engine.outputs) == (256, (512,))
    addresses = {name: address for key, (name, address) in _pairs(rig, "IExecutionContext.set_tensor_address")}
    assert addresses == {"frame": 256, output: 512}
    rig.ports[1][2] = (-1, 2, 24, 20)
    with pytest.raises(BundleError, match=r"the manifest says"):
        rig.open()


def test_an_engine_of_an_accelerator_is_given_to_it(rig: Rig) -> None:
    rig.open(EngineOptions(dla_core=1))
    assert rig.passed("Runtime.DLA_core") == [1]


@pytest.mark.parametrize(("core", "capturable"), [(None, True), (0, False)])
def test_an_engine_of_an_accelerator_is_not_captured(core: int | None, capturable: bool, rig: Rig) -> None:
    assert rig.open(EngineOptions(dla_core=core)).capturable is capturable


@pytest.mark.parametrize(
    ("call", "answer", "message"),
    [
        (
            "Runtime.deserialize_cuda_engine",
            None,
            "TensorRT refuses the engine: because; delete it and build it again",
        ),
        ("ICudaEngine.create_execution_context", None, "TensorRT cannot get the engine ready: because"),
        ("IExecutionContext.set_tensor_address", False, "TensorRT refuses a batch of 4 or its memory: because"),
        ("IExecutionContext.set_input_shape", False, "TensorRT refuses a batch of 4 or its memory: because"),
    ],
)
def test_an_engine_that_cannot_be_opened_says_why(rig: Rig, call: str, answer: object, message: str) -> None:
    rig.api.answers[call] = rig.failing(answer, "because")
    with pytest.raises(EngineError, match=f"^{message}$"):
        rig.open()


@pytest.mark.parametrize("call", ["Runtime.deserialize_cuda_engine", "IExecutionContext.execute_async_v3"])
def test_an_engine_that_cannot_be_opened_is_let_go(rig: Rig, call: str) -> None:
    """What was raised may be kept, and the memory that the engine works on is freed long before."""
    rig.api.answers[call] = rig.failing(None if "deserialize" in call else False, "because")
    with pytest.raises(FlawlineError) as caught:
        rig.open()
    gc.collect()
    living = {one.declared.__name__ for one in gc.get_objects() if type(one) is DeclaredObject}
    assert not living & {"Runtime", "ICudaEngine", "IExecutionContext"}
    del caught


@pytest.mark.parametrize("use", [Rig.build, Rig.open], ids=["network", "engine"])
def test_a_tensorrt_that_does_not_start_is_told_in_a_line(
    rig: Rig, use: Callable[[Rig], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real bindings, which get nothing from the empty library behind them, as from one that refuses the driver."""
    for module in MODULES:
        monkeypatch.setattr(module, "tensorrt", rig.api._bindings)
    with pytest.raises(
        DeviceError, match=r"^TensorRT [0-9.]+ does not start here: .*; expected a driver and a GPU that"
    ):
        use(rig)


def test_a_frame_that_fails_says_why(rig: Rig) -> None:
    engine = rig.open()
    rig.api.answers["IExecutionContext.execute_async_v3"] = rig.failing(False, "because")
    with pytest.raises(FlawlineError, match=r"TensorRT failed on a frame: because$"):
        engine.enqueue(7)
    rig.api.answers["IExecutionContext.execute_async_v3"] = False
    with pytest.raises(FlawlineError, match=r"TensorRT failed on a frame: no reason given$"):
        engine.enqueue(7)


def test_all_that_is_opened_has_one_log_and_it_outlives_them(rig: Rig) -> None:
    rig.build()
    rig.open().close()
    gc.collect()
    (log,) = {id(given): given for key in ("Builder", "Runtime") for given in rig.passed(key)}.values()
    assert log is tensorrt_log.open_log()


def test_each_thread_has_the_errors_of_its_own(rig: Rig) -> None:
    log, reasons = tensorrt_log.open_log(), []
    log.log(rig.api.ILogger.ERROR, "here")

    def work() -> None:
        log.log(rig.api.ILogger.ERROR, "there")
        reasons.append(log.reason())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [*reasons, log.reason(), log.reason()] == ["there", "here", "no reason given"]


def test_an_error_that_did_no_harm_is_not_blamed_for_the_next(rig: Rig) -> None:
    tensorrt_log.open_log().log(rig.api.ILogger.ERROR, "harmless")
    rig.api.answers["Builder.build_serialized_network"] = rig.failing(None, "because")
    with pytest.raises(EngineError, match=r"because$"):
        rig.build()


def test_a_closed_engine_runs_nothing(rig: Rig) -> None:
    engine = rig.open()
    engine.close()
    engine.close()
    with pytest.raises(FlawlineError, match="the engine is closed; open the bundle again"):
        engine.enqueue(7)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda api: api.Builder(),
        lambda api: api.object("IBuilderConfig").set_flag("FP16"),
        lambda api: api.object("IBuilderConfig").set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, 1.5),
        lambda api: api.object("IOptimizationProfile").set_shape("frame", (1, 2), (1, 2)),
        lambda api: api.object("IOptimizationProfile").set_shape("frame", 1, 1, 1),
        lambda api: api.object("IExecutionContext").set_tensor_address(256, "frame"),
        lambda api: api.object("IExecutionContext").execute_async_v3(stream=7),
        lambda api: setattr(api.object("INetworkDefinition"), "num_inputs", 1),
        lambda api: setattr(api.object("Runtime"), "DLA_core", "0"),
    ],
)
def test_a_call_that_is_not_as_declared_is_caught(wrong: Callable[[Declared], object], bindings: Any) -> None:
    with pytest.raises(NotDeclaredError):
        wrong(Declared(bindings))


@pytest.mark.parametrize("name", ["execute_async_v4", "set_binding_shape_v3"])
def test_a_name_that_is_not_declared_is_not_there(name: str, bindings: Any) -> None:
    api = Declared(bindings)
    assert not hasattr(api.object("IExecutionContext"), name)
    assert not hasattr(api, name)


def _pairs(rig: Rig, key: str) -> list[tuple[str, tuple[Any, ...]]]:
    return [(name, arguments) for name, arguments in rig.api.calls if name == key]
