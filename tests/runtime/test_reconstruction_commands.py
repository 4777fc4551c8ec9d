"""Commands with the bundle of a reconstruction detector: what each does with it, and what it refuses in one line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime import bundle
from flawline.runtime.images import write_image
from tests.runtime.command import run
from tests.runtime.reconstructions import KINDS, THRESHOLDS, expected_map, random_frames, reconstruction_bundle


@pytest.fixture
def rebuilt(tmp_path: Path) -> bundle.Bundle:
    """A bundle that offers every kind of map."""
    return reconstruction_bundle(tmp_path / "rebuilt.flaw")


@pytest.fixture
def shots(tmp_path: Path) -> tuple[list[Path], list[np.ndarray]]:
    """Grey images of the size of that bundle's, as files and as pixels."""
    folder, frames = tmp_path / "shots", random_frames(3, seed=11)
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        write_image(path, frame)
    return paths, frames


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_score_makes_the_map_that_is_asked_for(
    kind: str | None, rebuilt: bundle.Bundle, shots: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, frames = shots
    words = [] if kind is None else ["--map", kind]
    status, out, err = run(capsys, "score", rebuilt.path, *paths, "--json", *words)
    assert (status, err) == (0, "")
    for line, frame in zip(out.splitlines(), frames, strict=True):
        found = json.loads(line)
        expected = expected_map(frame, kind or "error").max()
        assert found["score"] == pytest.approx(expected, rel=1e-4)
        assert found["threshold"] == THRESHOLDS[kind or "error"]
        assert found["verdict"] == ("reject" if expected > found["threshold"] else "good")


def test_score_draws_the_map(
    rebuilt: bundle.Bundle, shots: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, _ = shots
    status, _, _ = run(capsys, "score", rebuilt.path, *paths, "--heatmaps", tmp_path / "overlays", "--map", "pse")
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["0.png", "1.png", "2.png"]


def test_verify_needs_no_map(rebuilt: bundle.Bundle, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "verify", rebuilt.path, "--backend", engine)
    assert (status, err) == (0, "")
    assert out.endswith(f"VERIFIED in fp32 on {engine}\n")


def test_verify_finds_scores_that_are_not_those_of_this_machine(
    tmp_path: Path, rebuilt: bundle.Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [bundle.Golden(one.frame, one.score * 1.01, one.map) for one in rebuilt.golden]
    path = tmp_path / "wrong.flaw"
    bundle.write(path, rebuilt.manifest, rebuilt.features, dict(rebuilt.statistics), wrong)
    status, out, _ = run(capsys, "verify", path)
    assert status == 1
    assert "NOT VERIFIED" in out


def test_info_says_how_images_are_rebuilt_and_which_maps_there_are(
    rebuilt: bundle.Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "info", rebuilt.path)
    assert (status, err) == (0, "")
    for fact in (
        "Detector               reconstruction: by a convolutional autoencoder with a bottleneck of 16 values",
        "Training               12 epochs of mse, the weights of epoch 9",
        "24 x 20 px grey (height x width), area; good images of 24 x 20 px",
        "error (default): threshold 90\n",
        "pse: threshold 30, sigma 1.5 px, taps of sum 1\n",
        "saliency: threshold 0.5\n",
        "saliency-squared: threshold 0.25\n",
        "calibration_scores.saliency_squared",
        "90, false reject rate 0.25, from 4 held-out good images",
        "22.5 to 90 on those images",
        "onnxruntime",
        "tensorrt",
    ):
        assert fact in out


def test_info_says_how_components_were_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info", Path(__file__).parents[1] / "golden" / "bundle_1_4")
    assert status == 0
    assert re.search(r"^Detector +reconstruction: from 2 principal components of the good images$", out, re.MULTILINE)
    assert re.search(r"^Choice +given$", out, re.MULTILINE)


def test_info_in_json_is_the_manifest(rebuilt: bundle.Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info", rebuilt.path, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["manifest"] == json.loads((rebuilt.path / "manifest.json").read_bytes())
    assert [engine["verdict"] for engine in found["engines"]["fp32"]].count("chosen") == 1


@pytest.mark.parametrize("kind", ["error", "saliency"])
def test_a_stream_is_cut_into_frames_and_scored_by_that_map(
    kind: str, rebuilt: bundle.Bundle, shots: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, frames = shots
    threshold = 0.9 * min(expected_map(frame, kind).max() for frame in frames)
    words = ["--source", f"replay:{paths[0].parent}?line_rate=0&block=24", "--json", "--threshold", str(threshold)]
    status, out, err = run(capsys, "stream", rebuilt.path, *words, "--map", kind)
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    peaks = [event["peak"] for event in events if event["type"] == "defect"]
    assert max(peaks) == pytest.approx(max(expected_map(frame, kind).max() for frame in frames), rel=1e-4)
    assert (events[-1]["type"], events[-1]["frames"], events[-1]["rejects"]) == ("summary", 3, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stream", "BUNDLE", "--source", "replay:SHOTS", "--map", "pse", "--gate-mm", "100"), "--gate-mm"),
        (("export", "BUNDLE", "--precision", "int8", "--images", "SHOTS", "--out", "OUT"), "this needs one of PaDiM"),
        (("export", "BUNDLE", "--to", "standalone", "--out", "OUT"), "this needs one of PaDiM"),
        (("score", "BUNDLE", "SHOTS", "--precision", "int8"), "the bundle holds no network in int8; expected fp32"),
        (("score", "ONE", "SHOTS", "--map", "saliency"), "the bundle offers no map 'saliency'; expected error"),
        (("stream", "ONE", "--source", "replay:SHOTS", "--map", "pse"), "offers no map 'pse'; expected error"),
        (("score", "PADIM", "SHOTS", "--map", "pse"), "is a bundle of PaDiM, which has one kind of anomaly map"),
        (("stream", "WEB", "--source", "replay:SHOTS", "--map", "pse"), "which has one kind of anomaly map"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    words: tuple[str, ...],
    message: str,
    rebuilt: bundle.Bundle,
    shots: tuple,
    through: Path,
    web_bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {
        "BUNDLE": rebuilt.path,
        "SHOTS": shots[0][0].parent,
        "OUT": tmp_path / "out",
        "PADIM": through,
    }
    if "ONE" in words:
        places["ONE"] = reconstruction_bundle(tmp_path / "one.flaw", kinds=("error",)).path
    if "WEB" in words:
        places["WEB"] = web_bundle().path
    filled = [
        word.replace("SHOTS", str(places["SHOTS"])) if "SHOTS" in word else places.get(word, word) for word in words
    ]
    status, out, err = run(capsys, *filled)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_of_map_is_refused(
    rebuilt: bundle.Bundle, shots: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["score", str(rebuilt.path), str(shots[0][0]), "--map", "ssim"])
    assert "invalid choice: 'ssim'" in capsys.readouterr().err
