"""Commands with the bundle of a reconstruction detector and `--backend tensorrt`, on the stand-in driver."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime import Detector, MissingExtraError
from flawline.runtime import bundle as bundles
from flawline.runtime.engines import try_engines
from flawline.runtime.gpu import driver
from flawline.runtime.gpu.network import cut_output
from flawline.runtime.images import write_image
from tests.emulation.standin import StandIn
from tests.runtime.reconstructions import KINDS, THRESHOLDS, expected_map, random_frames, reconstruction_bundle

OPTIONS = ("--backend", "tensorrt")
Run = Callable[..., list[str]]


@pytest.fixture
def rebuilt(tmp_path: Path) -> bundles.Bundle:
    """A bundle that offers every kind of map."""
    return reconstruction_bundle(tmp_path / "rebuilt.flaw")


@pytest.fixture
def frames() -> list[np.ndarray]:
    return random_frames(4, seed=11)


@pytest.fixture
def shots(tmp_path: Path, frames: list[np.ndarray]) -> Path:
    """The frames as files in the layout of a labelled folder."""
    folder = tmp_path / "shots" / "test"
    for number, frame in enumerate(frames):
        place = folder / ("good" if number < 2 else "spot")
        place.mkdir(parents=True, exist_ok=True)
        write_image(place / f"{number}.png", frame)
    return folder.parent


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the GPU: its lines on standard output. Nothing may go wrong."""

    def call(*words: object) -> list[str]:
        status = main([*map(str, words), *OPTIONS])
        captured = capsys.readouterr()
        assert (status, captured.err) == (0, "")
        return captured.out.splitlines()

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_score_makes_the_map_that_is_asked_for(
    kind: str, rebuilt: bundles.Bundle, shots: Path, frames: list[np.ndarray], run: Run, gpu: StandIn
) -> None:
    paths = sorted(shots.rglob("*.png"))
    for line, frame in zip(run("score", rebuilt.path, *paths, "--json", "--map", kind), frames, strict=True):
        found = json.loads(line)
        assert found["score"] == pytest.approx(expected_map(frame, kind).max(), rel=1e-4)
        assert (found["threshold"], found["engine"]) == (THRESHOLDS[kind], "emulated")
    assert gpu.calls("cuGraphLaunch") == len(frames) - 1


def test_the_golden_frames_are_verified(rebuilt: bundles.Bundle, run: Run, gpu: StandIn) -> None:
    assert run("verify", rebuilt.path)[-1] == "VERIFIED in fp32 on emulated"
    assert gpu.calls("kernel") > 0


def test_a_labelled_folder_is_evaluated(
    rebuilt: bundles.Bundle, shots: Path, frames: list[np.ndarray], run: Run, gpu: StandIn
) -> None:
    found = json.loads("".join(run("evaluate", rebuilt.path, shots, "--map", "pse", "--json")))
    assert found["backend"] == "emulated"
    assert [one["score"] for one in found["results"]] == pytest.approx(
        [expected_map(frame, "pse").max() for frame in frames], rel=1e-4
    )


@pytest.mark.parametrize("kind", ["error", "saliency-squared"])
def test_a_stream_is_scored_frame_by_frame(
    kind: str, rebuilt: bundles.Bundle, shots: Path, frames: list[np.ndarray], run: Run, gpu: StandIn
) -> None:
    words = ("--source", f"replay:{shots / 'test' / 'good'}?line_rate=0&block=24", "--json", "--threshold", "0")
    events = [json.loads(line) for line in run("stream", rebuilt.path, *words, "--map", kind)]
    peaks = [event["peak"] for event in events if event["type"] == "defect"]
    assert max(peaks) == pytest.approx(max(expected_map(frame, kind).max() for frame in frames[:2]), rel=1e-4)
    assert (events[-1]["type"], events[-1]["frames"], events[-1]["rejects"]) == ("summary", 2, 2)


def test_a_batch_of_a_detector_is_scored_at_once(
    rebuilt: bundles.Bundle, frames: list[np.ndarray], gpu: StandIn
) -> None:
    with Detector.open(rebuilt.path, backend="tensorrt", batch=4, map="pse") as detector:
        results = detector.batch(frames)
        assert detector.timings_ns.keys() >= {"upload", "resize", "network", "kernel", "download", "regions"}
    for result, frame in zip(results, frames, strict=True):
        np.testing.assert_allclose(result.map, expected_map(frame, "pse"), rtol=1e-4, atol=1e-3)
    assert gpu.calls("kernel") == 2


@pytest.mark.parametrize(
    ("kept", "verdicts", "words"),
    [
        (["reconstruction", "saliency"], {"chosen", "not faster"}, "ms per frame"),
        # The golden frames are of a map of the reconstruction, the frames that follow are not.
        (["saliency"], {"refused"}, "none was built for this device yet; `flawline export BUNDLE --to engine` does"),
        (["reconstruction"], {"refused"}, "yet; `flawline export BUNDLE --to engine --map saliency` does"),
    ],
)
def test_auto_tries_the_gpu_where_an_engine_was_built(
    kept: list[str],
    verdicts: set[str],
    words: str,
    rebuilt: bundles.Bundle,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flawline.runtime.gpu.tensorrt_engines.key_of", lambda bundle, device, batch: bundle.manifest)
    monkeypatch.setattr(
        "flawline.runtime.gpu.tensorrt_engines.kept_engine",
        lambda manifest, *, say: "an engine" if cut_output(manifest) in kept else None,
    )
    candidate = try_engines(rebuilt.with_map("saliency"), threads=1)[-1]
    assert candidate.name == "tensorrt"
    assert candidate.verdict in verdicts
    assert words in candidate.detail


def test_a_fallback_goes_on_with_the_same_map(
    rebuilt: bundles.Bundle, frames: list[np.ndarray], gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Detector.open(rebuilt.path, backend="tensorrt", fallback=True, map="saliency") as detector:
        assert detector(frames[0]).engine == "emulated"
        gpu.reset(fail="cuStreamSynchronize@1=719!")
        result = detector(frames[1])
    assert (result.engine, result.threshold) == ("onnxruntime", THRESHOLDS["saliency"])
    np.testing.assert_allclose(result.map, expected_map(frames[1], "saliency"), rtol=1e-5)
    gpu.restart()


def test_a_machine_without_a_driver_is_told_in_one_line(
    rebuilt: bundles.Bundle, shots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libcuda_of_no_machine.so.1")
    driver.find_driver.cache_clear()
    with pytest.raises(MissingExtraError, match="no NVIDIA driver"):
        Detector.open(rebuilt.path, backend="tensorrt")
    assert main(["score", str(rebuilt.path), str(shots), *OPTIONS]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flawline score: no NVIDIA driver: libcuda_of_no_machine.so.1")
    with Detector.open(rebuilt.path, backend="tensorrt", fallback=True) as detector:
        assert "no NVIDIA driver" in (detector.fallback_reason or "")
        assert detector.backend in ("onnxruntime", "openvino")


def test_a_classifier_is_refused_before_a_gpu_is_looked_for(
    tmp_path: Path, gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.runtime.classifiers import classifier_bundle

    path = classifier_bundle(tmp_path / "classes.flaw").path
    assert main(["verify", str(path), *OPTIONS]) == 2
    assert "is of a classifier, which runs on a CPU" in capsys.readouterr().err
    assert main(["export", str(path), "--to", "engine"]) == 2
    assert "is of a classifier, which runs on a CPU" in capsys.readouterr().err
    assert gpu.calls("cuInit") == 0
