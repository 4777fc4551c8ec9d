"""Benchmarks with the bundle of a reconstruction detector: what they measure, and what they leave out."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from flawline.__main__ import main
from flawline.benchmarks.costs import footprint
from flawline.benchmarks.costs.ways import ways_of
from flawline.runtime.bundle import read
from flawline.runtime.images import write_image
from tests.runtime.reconstructions import KINDS, THRESHOLDS, expected_map, random_frames, reconstruction_bundle


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reconstruction_bundle(tmp_path_factory.mktemp("rebuilt") / "rebuilt.flaw").path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[np.ndarray]]]:
    """Images in the MVTec layout, half of them with a bright line."""
    folder = tmp_path_factory.mktemp("labelled")
    frames = {"good": random_frames(6, seed=1), "line": random_frames(6, seed=2)}
    frames["good"] = [frame // 2 for frame in frames["good"]]
    for kind, images in frames.items():
        (folder / "test" / kind).mkdir(parents=True)
        for number, image in enumerate(images):
            write_image(folder / "test" / kind / f"{number}.png", image)
    return folder, frames


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_evaluate_measures_the_map_that_is_asked_for(
    kind: str | None, rebuilt: Path, labelled: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, frames = labelled
    words = [] if kind is None else ["--map", kind]
    assert main(["evaluate", str(rebuilt), str(folder), "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = [float(expected_map(frame, kind or "error").max()) for image in frames.values() for frame in image]
    assert (found["map"], found["threshold"]) == (kind or "error", THRESHOLDS[kind or "error"])
    assert found["image_auroc"] == pytest.approx(roc_auc_score([0] * 6 + [1] * 6, scores))
    assert sorted(one["score"] for one in found["results"]) == pytest.approx(sorted(scores), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ([], "convolutional, reconstruction from a bottleneck of 16 values, map 24 x 20, error\n"),
        (
            ["--map", "pse"],
            "convolutional, reconstruction from a bottleneck of 16 values, map 24 x 20, pse, sigma 1.5 px\n",
        ),
    ],
)
def test_evaluate_says_what_it_measured(
    words: list[str], about: str, rebuilt: Path, labelled: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(rebuilt), str(labelled[0]), *words]) == 0
    assert capsys.readouterr().out.startswith(about)


def test_latency_tells_stages_and_memory_and_leaves_out_what_is_of_mahalanobis_distances(
    rebuilt: Path, labelled: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "latency.json"
    words = ["--images", str(labelled[0] / "test/good"), "--threads", "1", "--runs", "6", "--map", "pse"]
    words += ["--json", str(record), "--backends", "onnxruntime"]
    assert main(["bench", "latency", str(rebuilt), *words]) == 0
    out, said = capsys.readouterr()
    stages = [f", {stage} {how}" for how in ("alone", "in a batch of 8") for stage in ("network", "kernel")]
    for name in ("", ", rejected"):
        assert f"warning: fp32 onnxruntime{name}, threads 1 may be unstable: only 6 runs\n" in said
    for name in stages:
        assert f"warning: fp32 onnxruntime, threads 1{name} may be unstable: only 1 runs\n" in said
    assert "d = " not in out + said
    assert "convolutional at 24 x 20, a bottleneck of 16 values, map pse of sigma 1.5 px, 6 frames in turn" in out
    assert "peak memory of `flawline score`" in out
    assert "factors" not in out
    assert "inverses" not in out
    found = json.loads(record.read_text())
    assert found["settings"]["detector"]["reconstruction"]["map"] == "pse"
    results = found["results"]
    assert (results["floor"], results["basis_floor"]) == ([], [])
    calibrated, rejected = results["latency"]
    assert (calibrated["dimension"], calibrated["precision"], calibrated["engine"]) == (16, "fp32", "onnxruntime")
    assert set(calibrated["stages"]) == {"resize", "network", "kernel", "regions"}
    assert all(stage["min_ns"] > 0 for stage in calibrated["stages"].values())
    lowered = 0.9 * 0.625 * THRESHOLDS["pse"]  # of the median of the calibration scores
    scores = np.array([expected_map(frame, "pse").max() for frame in labelled[1]["good"]])
    assert calibrated["rejected_frames"] == np.count_nonzero(scores > THRESHOLDS["pse"])
    assert rejected["rejected_frames"] == np.count_nonzero(scores > lowered)
    (weighed,) = results["footprints"]
    assert (weighed["factor_bytes"], weighed["peak_memory_bytes"] > 20e6) == (0, True)
    assert weighed["bundle_bytes"] == read(rebuilt).total_bytes


def test_peak_memory_is_of_the_map_that_is_asked_for(rebuilt: Path, labelled: tuple) -> None:
    (way,) = ways_of(rebuilt, "fp32", ["onnxruntime"], "saliency")
    with way.open(threads=1) as detector:
        assert detector.threshold == THRESHOLDS["saliency"]
    assert footprint.peak_memory_bytes(way, labelled[0] / "test/good/0.png") > 20e6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "latency", "--images", "IMAGES", "--map", "pse"], "--map pse without BUNDLE"),
        (["bench", "stream", "BUNDLE", "--lines", "IMAGES/test/good/0.png"], "this needs one of PaDiM"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    words: list[str], message: str, rebuilt: Path, labelled: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.replace("IMAGES", str(labelled[0])).replace("BUNDLE", str(rebuilt)) for word in words]
    assert main(filled) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_latency_of_principal_components_is_told_beside_the_time_to_read_them_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).parents[1] / "golden" / "bundle_1_4"
    opened = read(path)
    for number, golden in enumerate(opened.golden):
        write_image(tmp_path / f"{number}.png", golden.frame)
    record = tmp_path / "latency.json"
    words = ["--images", str(tmp_path), "--threads", "1", "--runs", "6", "--json", str(record)]
    assert main(["bench", "latency", str(path), *words, "--backends", "onnxruntime"]) == 0
    assert "of principal components, read twice at" in capsys.readouterr().out
    results = json.loads(record.read_text())["results"]
    (floor,) = results["basis_floor"]
    facts = opened.manifest
    values = facts.input.channels * facts.input.height * facts.input.width
    assert floor["basis_bytes"] == 4 * facts.reconstruction.components * values
    assert floor["floor_ns"] == pytest.approx(2e9 * floor["basis_bytes"] / floor["bytes_per_second"])
