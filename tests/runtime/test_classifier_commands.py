"""Commands with the bundle of a classifier: what each does with it, and what it refuses in one line."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flawline.runtime import Detector, bundle
from flawline.runtime.images import read_image, write_image
from flawline.runtime.overlay import BOX_COLOUR
from tests.runtime import classifiers
from tests.runtime.classifiers import CLASSES, THRESHOLDS, classifier_bundle, expected_score, random_frames
from tests.runtime.command import run


@pytest.fixture
def sorter(tmp_path: Path) -> bundle.Bundle:
    """A bundle of a classifier with a second head."""
    return classifier_bundle(tmp_path / "sorter.flaw")


@pytest.fixture
def shots(tmp_path: Path) -> tuple[list[Path], list[np.ndarray]]:
    """Grey images of the size of that bundle's, as files and as pixels."""
    folder, frames = tmp_path / "shots", random_frames(6, seed=11)
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        write_image(path, frame)
    return paths, frames


@pytest.mark.parametrize("kind", [None, "mahalanobis", "head"])
def test_score_in_json_says_class_probability_and_distances(
    kind: str | None, sorter: bundle.Bundle, shots: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, frames = shots
    words = [] if kind is None else ["--map", kind]
    status, out, err = run(capsys, "score", sorter.path, *paths, "--json", *words)
    assert (status, err) == (0, "")
    verdicts = set()
    for line, frame, path in zip(out.splitlines(), frames, paths, strict=True):
        found = json.loads(line)
        score, threshold = expected_score(frame, kind or "mahalanobis"), THRESHOLDS[kind or "mahalanobis"]
        assert (found["image"], found["threshold"]) == (str(path), threshold)
        assert found["score"] == pytest.approx(score, rel=1e-4)
        assert found["class"] == CLASSES[classifiers.probabilities(frame).argmax()]
        assert found["probability"] == pytest.approx(classifiers.probabilities(frame).max(), rel=1e-4)
        assert found["distances"] == pytest.approx(
            dict(zip(CLASSES, classifiers.distances(frame), strict=True)), rel=1e-4
        )
        assert found["nearest"] == CLASSES[(classifiers.distances(frame) / classifiers.CLASS_THRESHOLDS).argmin()]
        assert found["head"] == pytest.approx(classifiers.normal(frame), abs=1e-5)
        assert found["verdict"] == ("reject" if score > threshold else "good")
        verdicts.add(found["verdict"])
        height, width = classifiers.SIZE
        boxes = [(box["x"], box["y"], box["width"], box["height"]) for box in found["regions"]]
        assert boxes == [(0, 0, width, height)] * (score > threshold)
    assert kind == "head" or verdicts == {"good", "reject"}


def test_score_without_a_second_head_says_so(tmp_path: Path, shots: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    path = classifier_bundle(tmp_path / "headless.flaw", head=False).path
    status, out, _ = run(capsys, "score", path, shots[0][0], "--json")
    assert (status, json.loads(out)["head"]) == (0, None)


def test_score_says_class_and_probability_in_a_line(
    sorter: bundle.Bundle, shots: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, frames = shots
    status, out, err = run(capsys, "score", sorter.path, *paths)
    assert (status, err) == (0, "")
    for line, path, frame in zip(out.splitlines(), paths, frames, strict=True):
        of_classes = classifiers.probabilities(frame)
        label = CLASSES[of_classes.argmax()]
        assert line.endswith(f"  {path}  class {label}, probability {of_classes.max():.3f}")
        assert line.split()[0] == ("reject" if expected_score(frame) > THRESHOLDS["mahalanobis"] else "good")


def test_the_name_of_a_class_reaches_no_terminal_unescaped(
    tmp_path: Path, shots: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{name}\x1b[31m" for name in CLASSES]
    path = classifier_bundle(tmp_path / "red.flaw", classifier={"classes": names}).path
    for words in (("score", path, shots[0][0]), ("info", path)):
        _, out, _ = run(capsys, *words)
        assert "\\x1b[31m" in out
        assert "\x1b" not in out


def test_overlays_leave_the_image_as_it_is_but_for_the_frame_of_a_reject(
    sorter: bundle.Bundle, shots: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, frames = shots
    assert run(capsys, "score", sorter.path, *paths, "--heatmaps", tmp_path / "overlays")[0] == 0
    for path, frame in zip(paths, frames, strict=True):
        picture = read_image(tmp_path / "overlays" / path.name)
        inside = picture[3:-3, 3:-3]
        np.testing.assert_array_equal(inside, np.repeat(frame[3:-3, 3:-3, None], 3, axis=2))
        rejected = expected_score(frame) > THRESHOLDS["mahalanobis"]
        assert bool((picture[0] == BOX_COLOUR).all()) == rejected


def test_verify_runs_the_golden_frames(sorter: bundle.Bundle, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "verify", sorter.path, "--backend", engine)
    assert (status, err) == (0, "")
    assert out.endswith(f"VERIFIED in fp32 on {engine}\n")


def test_verify_finds_scores_that_are_not_those_of_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halved = {"class_thresholds": classifiers.CLASS_THRESHOLDS / 2}
    path = classifier_bundle(tmp_path / "wrong.flaw", tensors=halved).path
    status, out, _ = run(capsys, "verify", path)
    assert status == 1
    assert "NOT VERIFIED" in out


def test_info_says_what_is_told_apart(sorter: bundle.Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "info", sorter.path)
    assert (status, err) == (0, "")
    for fact in (
        "Detector               classifier: one Gaussian per class of the deep features, and a second head\n",
        "Network                lenet, fp32, features of fc2\n",
        "Output                 features 1 x 1, logits 1 x 1, head 1 x 1\n",
        "Classes                3: bolt, nut, washer\n",
        "Training               12 epochs of cross-entropy and center loss (center weight 0.1), the weights of epoch 9\n",
        "  second head          trained with 30 images of no class\n",
        "Projection             none, 4 to 4 channels",
        "Gaussians              3, epsilon 0.01 of the mean feature variance, no shrinkage\n",
        "  of each class        threshold 1.5 to 2, percentile 97.5 of the distances of its training images\n",
        "Score                  mahalanobis (default): threshold 1.25\n",
        "Score                  head: threshold 0.5\n",
        "Threshold              1.25, false reject rate 0.25, from 4 held-out good images\n",
        "In fp32                onnxruntime",
    ):
        assert fact in out
    assert "tensorrt" not in out


def test_info_says_what_it_does_not_know_of_a_network_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = dict.fromkeys(("loss", "center_weight", "epochs", "best_epoch", "head_images"))
    classes = [f"class {number}" for number in range(3)]
    path = classifier_bundle(tmp_path / "file.flaw", head=False, classifier=unknown | {"classes": classes}).path
    status, out, _ = run(capsys, "info", path)
    assert status == 0
    assert "Training               not known: the network came as an ONNX file\n" in out
    assert "Classes                3: class 0, class 1, class 2\n" in out
    assert "second head" not in out


def test_info_in_json_is_the_manifest(sorter: bundle.Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info", sorter.path, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["manifest"] == json.loads((sorter.path / "manifest.json").read_bytes())
    assert [engine["verdict"] for engine in found["engines"]["fp32"]].count("chosen") == 1


def test_info_shows_the_first_of_many_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, statistics = classifiers.manifest(head=False), classifiers.statistics(head=False)
    names = [f"kind-{number}" for number in range(30)]
    many = {
        name: np.repeat(statistics[name], 10, axis=0) for name in ("means", "factors", "scales", "class_thresholds")
    }
    facts = msgspec.structs.replace(
        facts,
        classifier=msgspec.structs.replace(facts.classifier, classes=names),
        gaussian=msgspec.structs.replace(facts.gaussian, count=30),
    )
    statistics |= many | {"assignment": np.arange(30, dtype=np.int32)}
    path = tmp_path / "many.flaw"
    bundle.write(path, facts, classifiers.graph(head=False), statistics, classifiers.golden())
    status, out, _ = run(capsys, "info", path)
    assert status == 0
    assert "30: kind-0, kind-1," in out
    assert "kind-19 and 10 more\n" in out
    # Its graph has three logits: no engine takes it.
    assert "In fp32                onnxruntime" in out
    assert "refused" in out


def test_a_stream_counts_frames_and_rejects(
    sorter: bundle.Bundle, shots: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, frames = shots
    height = classifiers.SIZE[0]
    status, out, err = run(
        capsys, "stream", sorter.path, "--source", f"replay:{paths[0].parent}?line_rate=0&block={height}", "--json"
    )
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    rejected = [frame for frame in frames if expected_score(frame) > THRESHOLDS["mahalanobis"]]
    peaks = [event["peak"] for event in events if event["type"] == "defect"]
    assert peaks == pytest.approx([expected_score(frame) for frame in rejected], rel=1e-4)
    assert (events[-1]["frames"], events[-1]["rejects"]) == (len(frames), len(rejected))
    with Detector.open(sorter.path) as detector:
        results = [detector(frame) for frame in frames]
    found = [result.classification for result in results]
    of_rejects = [one for one, result in zip(found, results, strict=True) if result.verdict == "reject"]
    defects = [event for event in events if event["type"] == "defect"]
    told = [(event["class"], event["probability"], event["nearest"]) for event in defects]
    assert told == [(one.label, pytest.approx(one.probability), one.nearest) for one in of_rejects]
    passed = Counter(one.label for one, result in zip(found, results, strict=True) if result.verdict == "good")
    assert events[-1]["classes"] == passed
    assert {one.label for one in of_rejects} - passed.keys(), "no class of which only rejects were seen"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("score", "BUNDLE", "SHOTS", "--map", "pse"), "the bundle offers no map 'pse'; expected head or mahalanobis"),
        (("score", "BUNDLE", "SHOTS", "--backend", "tensorrt"), "is of a classifier, which runs on a CPU"),
        (("score", "BUNDLE", "SHOTS", "--precision", "int8"), "the bundle holds no network in int8; expected fp32"),
        (("verify", "BUNDLE", "--backend", "tensorrt"), "is of a classifier, which runs on a CPU"),
    ],
)
def test_what_it_does_not_do_is_refused_in_one_line(
    words: tuple[str, ...],
    message: str,
    sorter: bundle.Bundle,
    shots: tuple,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"BUNDLE": sorter.path, "SHOTS": shots[0][0].parent}
    status, out, err = run(capsys, *(places.get(word, word) for word in words))
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
