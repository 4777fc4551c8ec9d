"""Engines of real bundles, parsed and built for real by TensorRT-RTX, which needs no GPU to do so.

It has the interface of TensorRT 11. Its engines run on no Jetson, and none runs here.
"""

import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
import pytest

from flawline.__main__ import main
from flawline.export.addition import add_precision
from flawline.export.calibrated import calibrate
from flawline.export.fit import FitOptions, fit_bundle
from flawline.export.half import to_fp16
from flawline.export.quantise import quantise
from flawline.runtime import bundle as bundles
from flawline.runtime.errors import EngineError, InputError
from flawline.runtime.gpu import driver, engine_builder, tensorrt, tensorrt_engines
from flawline.runtime.gpu.engine_builder import Plan, build_plan
from flawline.runtime.gpu.engine_cache import (
    Engine,
    EngineKey,
    EngineOptions,
    cache_path,
    read_engine,
    timing_cache_path,
    write_engine,
)
from flawline.runtime.gpu.tensorrt_engines import find_engine, key_of, tensorrt_opener
from flawline.runtime.images import list_images
from flawline.runtime.precisions import Precision
from tests.export.rtx import NoDevice, rtx, run_command

__all__ = ["rtx"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8-tensorrt")
ON_THE_GPU = EngineOptions()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, good_images: Path) -> bundles.Bundle:
    """The small bundle in all precisions of TensorRT."""
    return with_all_precisions(bundles.read(tiny_bundle), good_images, tmp_path_factory.mktemp("precisions"))


def with_all_precisions(bundle: bundles.Bundle, images: Path, folder: Path) -> bundles.Bundle:
    for precision in PRECISIONS[1:]:
        bundle = add_precision(bundle.path, precision, list_images(images), folder / f"{precision}.flaw", threads=1)
    return bundle


def plan_of(rtx: Executor, bundle: bundles.Bundle, precision: Precision, *, batch: int = 1) -> bytes:
    chosen = bundle.select(precision)
    built: Plan = rtx.submit(
        build_plan, chosen.features, chosen.manifest, batch=batch, options=EngineOptions(workspace_mb=256)
    ).result()
    return built.plan


def test_an_engine_of_every_precision_is_built(rtx: Executor, bundle: bundles.Bundle) -> None:
    plans = {precision: plan_of(rtx, bundle, precision, batch=4) for precision in PRECISIONS}
    assert all(len(plan) > 1000 for plan in plans.values())
    assert len(set(plans.values())) == len(PRECISIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "weights", "lighter"),
    # In 8 bits the code for Lite0 weighs more than its weights.
    [("efficientnet-lite0", None, ["fp16"]), ("resnet18", "random", ["fp16", "int8-tensorrt"])],
)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_engines_of_whole_networks_hold_weights_of_their_precision(
    backbone: str,
    weights: str | None,
    lighter: list[Precision],
    layout: Literal["nhwc", "nchw"],
    rtx: Executor,
    good_images: Path,
    tmp_path: Path,
) -> None:
    options = FitOptions(backbone=backbone, weights=weights, image_size=96, dimension=16, layout=layout, threads=1)
    bundle = fit_bundle(list_images(good_images), tmp_path / "made.flaw", options)
    shape = tensorrt.shapes(bundle.manifest, 4)[0]
    calibrated = calibrate(bundle.features, np.random.default_rng(0).integers(0, 256, shape, np.uint8), len(shape))
    graphs: dict[Precision, bytes] = {
        "fp32": bundle.features,
        "fp16": to_fp16(bundle.features),
        "int8-tensorrt": quantise(calibrated, "int8-tensorrt"),
    }
    sizes = {}
    for precision, features in graphs.items():
        network = msgspec.structs.replace(bundle.manifest.network, precision=precision)
        manifest = msgspec.structs.replace(bundle.manifest, network=network)
        sizes[precision] = len(rtx.submit(build_plan, features, manifest, batch=2, options=ON_THE_GPU).result().plan)
    assert [precision for precision in PRECISIONS if sizes[precision] < 0.75 * sizes["fp32"]] == lighter


def frame_transposed_as_bytes(features: bytes) -> bytes:
    """The graph as earlier versions composed it."""
    model = onnx.load_from_string(features)
    cast, transpose = model.graph.node[:2]
    assert (cast.op_type, transpose.op_type) == ("Cast", "Transpose")
    first = onnx.helper.make_node("Transpose", cast.input, cast.output, name="planes", perm=(0, 3, 1, 2))
    second = onnx.helper.make_node("Cast", transpose.input, transpose.output, to=onnx.TensorProto.FLOAT)
    cast.CopyFrom(first)
    transpose.CopyFrom(second)
    return bytes(model.SerializeToString())


def test_a_layer_that_is_refused_is_named_with_the_reason(rtx: Executor, bundle: bundles.Bundle) -> None:
    features = frame_transposed_as_bytes(bundle.features)
    work = rtx.submit(build_plan, features, bundle.manifest, batch=1, options=ON_THE_GPU)
    with pytest.raises(EngineError, match=r"TensorRT refuses layer planes \(Transpose\) of the feature graph: .*UInt8"):
        work.result()


def test_an_accelerator_that_is_not_there_is_refused(rtx: Executor, bundle: bundles.Bundle) -> None:
    chosen = bundle.select("fp16")
    options = EngineOptions(dla_core=0)
    work = rtx.submit(build_plan, chosen.features, chosen.manifest, batch=1, options=options)
    with pytest.raises(InputError, match="accelerator 0 is not there; this device has 0 of them"):
        work.result()


def interrupted_build(path: str) -> str:
    """Ctrl-C when a build begins."""
    bundle, monitor = bundles.read(path), engine_builder._monitor

    def interrupting(interrupted: Callable[[], bool]) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return monitor(interrupted)

    engine_builder._monitor = interrupting
    try:
        build_plan(bundle.features, bundle.manifest, batch=1, options=ON_THE_GPU)
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        engine_builder._monitor = monitor
    return "built"


def test_an_interrupted_build_ends_without_ending_the_process(rtx: Executor, tiny_bundle: Path) -> None:
    assert rtx.submit(interrupted_build, str(tiny_bundle)).result() == "interrupted"


def open_on_nothing(cache: str, path: str) -> tuple[str, str]:
    """What is raised, and what was told before."""
    os.environ["XDG_CACHE_HOME"] = cache
    open_engine = tensorrt_opener(bundles.read(path), NoDevice(), batch=1)  # type: ignore[arg-type]
    with redirect_stderr(StringIO()) as told, pytest.raises(EngineError) as caught:
        open_engine(256, (512, 1024))
    return str(caught.value), told.getvalue()


def test_an_engine_that_cannot_run_here_is_refused_and_named(
    rtx: Executor, bundle: bundles.Bundle, tmp_path: Path
) -> None:
    """As one of a driver that was replaced since may be, where there is a GPU."""
    message, told = rtx.submit(open_on_nothing, str(tmp_path), str(bundle.path)).result()
    assert told.startswith("building an engine for Orin (nvgpu) with TensorRT ")
    file, _, refusal = message.partition(": ")
    assert Path(file).parent == tmp_path / "flawline/engines"
    assert Path(file).is_file()
    assert refusal.startswith("TensorRT refuses the engine: ")
    assert refusal.endswith("; delete it and build it again")
    assert "no reason given" not in refusal


def key_here(path: str, precision: Precision, batch: int) -> EngineKey:
    return key_of(bundles.read(path).select(precision), NoDevice(), batch)  # type: ignore[arg-type]


def found(cache: str, bundle: str, key: EngineKey, path: Path | None) -> tuple[Engine, list[str]]:
    os.environ["XDG_CACHE_HOME"] = cache
    lines: list[str] = []
    return find_engine(bundles.read(bundle).select(key.precision), key, path=path, say=lines.append), lines


@pytest.fixture
def key(rtx: Executor, bundle: bundles.Bundle) -> EngineKey:
    made: EngineKey = rtx.submit(key_here, str(bundle.path), "fp16", 2).result()
    return made


@pytest.fixture
def kept(tmp_path: Path, key: EngineKey, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache of this test keeps the engine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_path(key)


def test_the_command_builds_into_the_cache_once(
    rtx: Executor, bundle: bundles.Bundle, key: EngineKey, kept: Path, tmp_path: Path
) -> None:
    words = ["export", str(bundle.path), "--to", "engine", "--precision", "fp16", "--batch", "2"]
    ran = rtx.submit(run_command, str(tmp_path), words).result()
    assert (ran.status, ran.out) == (0, f"{kept}: {kept.stat().st_size / 1e6:.1f} MB, fp16\n")
    assert ran.err.startswith("building an engine for Orin (nvgpu) with TensorRT ")
    assert read_engine(kept, key).options == ON_THE_GPU
    again = rtx.submit(run_command, str(tmp_path), [*words, "--json"]).result()
    assert msgspec.json.decode(again.out) == {"engine": str(kept), "precision": "fp16", "bytes": kept.stat().st_size}
    assert again.err == "it is there already\n"
    assert rtx.submit(run_command, str(tmp_path), [*words, "--workspace-mb", "64"]).result().status == 0
    assert read_engine(kept, key).options == EngineOptions(workspace_mb=64)


def test_the_command_writes_the_file_that_it_is_given(
    rtx: Executor, bundle: bundles.Bundle, key: EngineKey, tmp_path: Path
) -> None:
    out = tmp_path / "part.engine"
    words = ["export", str(bundle.path), "--to", "engine", "--precision", "fp16", "--batch", "2", "--out", str(out)]
    assert rtx.submit(run_command, str(tmp_path / "cache"), words).result().status == 0
    engine, lines = rtx.submit(found, str(tmp_path / "cache"), str(bundle.path), key, out).result()
    assert engine == read_engine(out, key)
    assert lines == []


def test_an_engine_is_built_where_there_is_none_and_found_afterwards(
    rtx: Executor, bundle: bundles.Bundle, key: EngineKey, kept: Path, tmp_path: Path
) -> None:
    engine, lines = rtx.submit(found, str(tmp_path), str(bundle.path), key, None).result()
    assert lines == [f"building an engine for Orin (nvgpu) with TensorRT {key.tensorrt}; this takes minutes, once"]
    assert rtx.submit(found, str(tmp_path), str(bundle.path), key, None).result() == (engine, [])
    assert read_engine(kept, key) == engine


def test_a_damaged_engine_of_the_cache_is_built_again(
    rtx: Executor, bundle: bundles.Bundle, key: EngineKey, kept: Path, tmp_path: Path
) -> None:
    rtx.submit(found, str(tmp_path), str(bundle.path), key, None).result()
    kept.write_bytes(kept.read_bytes()[:-1])
    _, lines = rtx.submit(found, str(tmp_path), str(bundle.path), key, None).result()
    assert len(lines) == 2
    assert "is damaged" in lines[0]
    read_engine(kept, key)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"device": "NVIDIA Thor", "compute_capability": (11, 0)},
            "was built for NVIDIA Thor, compute capability 11.0",
        ),
        ({"tensorrt": "10.3.0"}, "was built for TensorRT 10.3.0"),
    ],
    ids=["device", "version"],
)
def test_the_command_builds_a_foreign_engine_of_the_cache_again_and_says_why(
    changed: dict[str, Any],
    reason: str,
    rtx: Executor,
    bundle: bundles.Bundle,
    key: EngineKey,
    kept: Path,
    tmp_path: Path,
) -> None:
    kept.parent.mkdir(parents=True)
    write_engine(kept, msgspec.structs.replace(key, **changed), Engine(ON_THE_GPU, b"of another place"))
    words = ["export", str(bundle.path), "--to", "engine", "--precision", "fp16", "--batch", "2"]
    ran = rtx.submit(run_command, str(tmp_path), words).result()
    first, second = ran.err.splitlines()
    assert ran.status == 0
    assert first.startswith(f"engine {kept} {reason}; expected one for ")
    assert second.startswith("building an engine for Orin (nvgpu)")
    assert len(read_engine(kept, key).plan) > 1000


def test_the_command_refuses_a_network_whose_maps_are_not_those_of_the_factors(
    rtx: Executor, tiny_bundle: Path, tiny_network: Path, good_images: Path, tmp_path: Path
) -> None:
    bundle = bundles.read(tiny_bundle)
    options = FitOptions(
        backbone=str(tiny_network), layers=("fine", "coarse"), image_size=64, dimension=6, threads=1, smoothing_px=4.0
    )
    other = fit_bundle(list_images(good_images), tmp_path / "other.flaw", options)
    assert other.manifest.projection.dimension != bundle.manifest.projection.dimension
    mixed = bundles.write(
        tmp_path / "mixed.flaw", bundle.manifest, other.features, dict(bundle.statistics), bundle.golden
    )
    words = ["export", str(mixed.path), "--to", "engine", "--out", str(tmp_path / "part.engine")]
    ran = rtx.submit(run_command, str(tmp_path), words).result()
    building, refusal = ran.err.splitlines()
    assert (ran.status, ran.out) == (2, "")
    assert building.startswith("building an engine")
    assert re.fullmatch(r"flawline export: .*\b6\b.*; the manifest says .*\b10\b.*", refusal), refusal
    assert not (tmp_path / "part.engine").exists()


def test_timings_that_cannot_be_read_do_no_harm(
    rtx: Executor, bundle: bundles.Bundle, key: EngineKey, kept: Path, tmp_path: Path
) -> None:
    timing_cache_path(key).mkdir(parents=True)
    engine, lines = rtx.submit(found, str(tmp_path), str(bundle.path), key, None).result()
    assert lines[-1].startswith("the next engine will take as long: ")
    assert read_engine(kept, key) == engine


def test_a_cache_that_cannot_be_looked_at_is_told_in_a_line(
    rtx: Executor, bundle: bundles.Bundle, tmp_path: Path
) -> None:
    ran = rtx.submit(run_command, str(tmp_path / ("n" * 300)), ["export", str(bundle.path), "--to", "engine"]).result()
    assert (ran.status, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "File name too long" in ran.err


def test_a_named_engine_for_another_device_is_refused_and_left_alone(
    rtx: Executor, bundle: bundles.Bundle, key: EngineKey, kept: Path, tmp_path: Path
) -> None:
    rtx.submit(found, str(tmp_path), str(bundle.path), key, None).result()
    before = kept.read_bytes()
    thor = msgspec.structs.replace(key, device="NVIDIA Thor", compute_capability=(11, 0))
    with pytest.raises(
        EngineError, match=r"was built for Orin \(nvgpu\), compute capability 8.7; expected one for NVIDIA"
    ):
        rtx.submit(found, str(tmp_path), str(bundle.path), thor, kept).result()
    assert kept.read_bytes() == before


def test_without_a_driver_a_line_says_so_before_tensorrt_is_touched(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Touched without a driver, it ends the process."""
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-that-is-not-there.so")
    monkeypatch.setattr(tensorrt_engines, "tensorrt", None)
    driver.find_driver.cache_clear()
    assert main(["export", str(tiny_bundle), "--to", "engine", "--out", str(tmp_path / "part.engine")]) == 2
    driver.find_driver.cache_clear()
    complaint = capsys.readouterr().err
    assert complaint.startswith("flawline export: no NVIDIA driver: libcuda-that-is-not-there.so")
    assert len(complaint.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "engine", "--images", "good"), "--images does not go with --to engine"),
        (("--to", "engine", "--factors", "fp32"), "--factors does not go with --to engine"),
        (("--to", "engine", "--precision", "int8"), "holds no network in int8"),
        (("--to", "engine", "--out", "none/part.engine"), "expected the name of a file, in a folder that exists"),
        (("--to", "engine", "--map", "pse"), "is a bundle of PaDiM, which has one kind of anomaly map"),
        (("--to", "standalone", "--map", "pse", "--out", "out"), "--map does not go with --to standalone"),
        (("--to", "standalone", "--batch", "2", "--out", "out"), "--batch does not go with --to standalone"),
        (("--to", "standalone"), "--to standalone needs --out, the file to make or replace"),
        (("--precision", "fp16", "--dla", "0", "--out", "out"), "--dla does not go with --precision alone"),
        (("--precision", "fp16", "--images", "good"), "--precision fp16 needs --out, the bundle to make"),
    ],
)
def test_the_command_says_what_it_needs(
    words: tuple[str, ...], message: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny_bundle), *words]) == 2
    assert message in capsys.readouterr().err
