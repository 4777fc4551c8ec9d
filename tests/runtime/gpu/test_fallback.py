"""What a detector does when its GPU cannot be had or fails."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime import Detector, DeviceError, FlawlineError, InputError, MissingExtraError
from flawline.runtime import bundle as bundles
from flawline.runtime.engines import try_engines
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.stream.pipeline import WARMUP_FRAMES
from tests.emulation.standin import StandIn

Frames = Callable[..., list[np.ndarray]]
SHAPE = (96, 128)


def test_results_say_which_engine_scored_them(tiny_bundle: Path, frames: Frames, gpu: StandIn) -> None:
    (image,) = frames(SHAPE)
    with (
        Detector.open(tiny_bundle, backend="tensorrt") as detector,
        Detector.open(tiny_bundle, backend="onnxruntime") as cpu,
    ):
        result, expected = detector(image), cpu(image)
        assert (detector.backend, result.engine, expected.engine) == ("emulated", "emulated", "onnxruntime")
        assert result.score == pytest.approx(expected.score, rel=1e-5)
        assert detector.timings_ns.keys() >= {"upload", "resize", "network", "kernel", "download", "regions"}
        assert detector.fallback_reason is None


def test_a_gpu_that_fails_closes_the_detector(tiny_bundle: Path, frames: Frames, gpu: StandIn) -> None:
    (image,) = frames(SHAPE)
    with Detector.open(tiny_bundle, backend="tensorrt") as detector:
        gpu.reset(fail="cuLaunchKernel@1=701")
        with pytest.raises(DeviceError, match="the detector is closed: open the bundle again"):
            detector(image)
        with pytest.raises(FlawlineError, match="the detector is closed; open the bundle again"):
            detector(image)


def test_a_gpu_that_is_lost_is_not_opened_again_in_the_same_process(
    tiny_bundle: Path, frames: Frames, gpu: StandIn
) -> None:
    (image,) = frames(SHAPE)
    with Detector.open(tiny_bundle, backend="tensorrt") as detector:
        gpu.reset(fail="cuLaunchKernel@1=719")
        for words in ("the GPU failed on a frame: .*", "GPU 0 has failed"):
            with pytest.raises(DeviceError, match=f"^{words}; it is lost to this process: end the process and start"):
                detector(image)
    gpu.restart()


def test_with_fallback_the_frame_and_all_that_follow_are_scored_on_the_cpu(
    tiny_bundle: Path, frames: Frames, gpu: StandIn
) -> None:
    images = frames(*[SHAPE] * 3)
    with (
        Detector.open(tiny_bundle, backend="tensorrt", fallback=True, batch=2) as detector,
        Detector.open(tiny_bundle, backend="onnxruntime") as cpu,
    ):
        assert detector(images[0]).engine == "emulated"
        gpu.reset(fail="cuStreamSynchronize@1=719!")
        results = [*detector.batch(images[1:]), detector(images[0])]
        assert [result.engine for result in results] == ["onnxruntime"] * 3
        for result, image in zip(results, (*images[1:], images[0]), strict=True):
            assert result.score == pytest.approx(cpu(image).score, rel=1e-5)
        assert detector.backend == "onnxruntime"
        assert "the GPU failed on a frame: cuStreamSynchronize failed" in (detector.fallback_reason or "")
        assert "upload" not in detector.timings_ns
    gpu.restart()


def test_with_fallback_a_gpu_that_cannot_be_had_is_done_without(
    tiny_bundle: Path, frames: Frames, gpu: StandIn
) -> None:
    gpu.reset(devices=0)
    with pytest.raises(DeviceError, match="finds no GPU"):
        Detector.open(tiny_bundle, backend="tensorrt")
    with Detector.open(tiny_bundle, backend="tensorrt", fallback=True) as detector:
        assert detector(frames(SHAPE)[0]).engine == "onnxruntime"
        assert "finds no GPU" in (detector.fallback_reason or "")


def test_fallback_hides_no_error_of_an_engine_on_the_cpu(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="backend 'none' is unknown"):
        Detector.open(tiny_bundle, backend="none", fallback=True)


def test_a_wrong_frame_is_no_reason_to_fall_back(tiny_bundle: Path, frames: Frames, gpu: StandIn) -> None:
    with Detector.open(tiny_bundle, backend="tensorrt", fallback=True) as detector:
        with pytest.raises(InputError):
            detector(np.zeros((32, 32, 3), np.uint8))
        assert detector(frames(SHAPE)[0]).engine == "emulated"


@pytest.mark.parametrize(
    ("kept", "verdicts", "words"),
    [
        ("an engine", {"chosen", "not faster"}, "ms per frame"),
        (None, {"refused"}, "none was built for this device yet; `flawline export BUNDLE --to engine` does"),
    ],
)
def test_auto_tries_the_gpu_where_an_engine_was_built(
    kept: str | None,
    verdicts: set[str],
    words: str,
    tiny_bundle: Path,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flawline.runtime.gpu.tensorrt_engines.key_of", lambda bundle, device, batch: None)
    monkeypatch.setattr("flawline.runtime.gpu.tensorrt_engines.kept_engine", lambda key, *, say: kept)
    candidate = try_engines(bundles.read(tiny_bundle), threads=1)[-1]
    assert candidate.name == "tensorrt"
    assert candidate.verdict in verdicts
    assert words in candidate.detail
    assert kept is None or candidate.worst_relative_error < 1e-3


def test_a_precision_that_no_gpu_computes_in_is_refused_before_one_is_looked_for(
    make_bundle: Callable[..., bundles.Bundle], remade: Callable[..., bundles.Bundle], tmp_path: Path
) -> None:
    bundle = remade(make_bundle(tmp_path / "one.flaw"), tmp_path / "two.flaw", network={"precision": "bf16"})
    with pytest.raises(InputError, match="tensorrt does not compute in precision 'bf16'; take --backend openvino"):
        Detector.open(bundle.path, backend="tensorrt")


def test_a_machine_without_a_driver_is_told_in_one_line(
    tiny_bundle: Path, good_images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flawline.runtime.gpu import driver

    monkeypatch.setattr(driver, "LIBRARY", "libcuda_of_no_machine.so.1")
    driver.find_driver.cache_clear()
    with pytest.raises(MissingExtraError, match="no NVIDIA driver"):
        Detector.open(tiny_bundle, backend="tensorrt")
    image = str(list_images(good_images)[0])
    assert main(["score", str(tiny_bundle), image, "--backend", "tensorrt"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flawline score: no NVIDIA driver: libcuda_of_no_machine.so.1")


def test_score_goes_on_and_says_so(
    tiny_bundle: Path, good_images: Path, gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(path) for path in list_images(good_images)[:3]]
    # The first frame runs piece by piece.
    gpu.reset(fail="cuGraphLaunch@1=719")
    assert main(["score", str(tiny_bundle), *images, "--json", "--backend", "tensorrt", "--fallback"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["engine"] for line in out.splitlines()] == ["emulated", "onnxruntime", "onnxruntime"]
    assert err.startswith("flawline score: onnxruntime has taken over: the GPU failed on a frame")
    gpu.restart()


@pytest.fixture
def web(tmp_path: Path, good_images: Path) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    for index, path in enumerate(list_images(good_images)[:6]):
        write_image(folder / f"{index}.png", read_image(path))
    return folder


def test_every_frame_of_a_stream_comes_from_the_graph(tiny_bundle: Path, web: Path, gpu: StandIn) -> None:
    assert main(["stream", str(tiny_bundle), "--source", f"replay:{web}", "--backend", "tensorrt"]) == 0
    # All but the first of the warm-up, and then the live ones.
    assert gpu.calls("cuGraphLaunch") == WARMUP_FRAMES - 1 + 6


def test_a_stream_on_the_gpu_ends_with_its_account_when_the_gpu_fails(
    tiny_bundle: Path, web: Path, gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.reset(fail=f"cuGraphLaunch@{WARMUP_FRAMES + 2}=719")
    words = ["stream", str(tiny_bundle), "--source", f"replay:{web}", "--json", "--backend", "tensorrt"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    *events, summary = [json.loads(line) for line in out.splitlines()]
    assert (summary["ended"], summary["frames"], summary["bad_frames"]) == ("detector_failed", 2, 1)
    (gap,) = [event for event in events if event["type"] == "gap" and "bad_frame" in event["reasons"]]
    assert "the GPU failed on a frame" in gap["detail"]
    assert "it is lost to this process: end the process and start it again" in err.splitlines()[-1]
    gpu.restart()


def test_a_stream_with_fallback_scores_every_frame(
    tiny_bundle: Path, web: Path, gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.reset(fail=f"cuGraphLaunch@{WARMUP_FRAMES + 2}=719")
    words = ["stream", str(tiny_bundle), "--source", f"replay:{web}", "--json", "--backend", "tensorrt", "--fallback"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])
    assert (summary["ended"], summary["frames"], summary["bad_frames"]) == ("end", 6, 0)
    assert "flawline stream: onnxruntime has taken over: the GPU failed on a frame" in err
    gpu.restart()
