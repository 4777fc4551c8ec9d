"""`flawline evaluate` with the bundle of a classifier: figures by their definitions, and folders that it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from flawline.__main__ import main
from flawline.runtime.images import write_image
from tests.runtime.classifiers import CLASSES, THRESHOLDS, classifier_bundle, expected_score, probabilities
from tests.runtime.classifiers import random_frames as frames_of

Folders = dict[str, list[np.ndarray]]


@pytest.fixture(scope="module")
def sorter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_bundle(tmp_path_factory.mktemp("sorter") / "sorter.flaw").path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Folders]:
    """Images of two of the three classes, most of them right, and of two folders that are of none."""
    root = tmp_path_factory.mktemp("labelled")
    frames = frames_of(60, seed=8)
    right: Folders = {name: [] for name in CLASSES}
    for frame in frames:
        right[CLASSES[int(probabilities(frame).argmax())]].append(frame)
    folders = {
        "washer": right["washer"] + right["bolt"][:3],
        "bolt": right["bolt"][3:] + right["nut"][:2],
        "coin": [255 - frame for frame in frames[:5]],
        "key": [np.full_like(frame, 20) for frame in frames[:4]],
    }
    for name, images in folders.items():
        (root / "test" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            write_image(root / "test" / name / f"{number:02}.png", image)
    return root, folders


def evaluate(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("kind", ["mahalanobis", "head"])
def test_figures_are_those_of_their_definitions(
    kind: str, sorter: Path, labelled: tuple[Path, Folders], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, folders = labelled
    found = evaluate(capsys, sorter, folder, "--map", kind)
    rows = [(name, frame) for name, images in folders.items() for frame in images]
    truth = np.array([name for name, _ in rows])
    scores = np.array([expected_score(frame, kind) for _, frame in rows])
    labels = np.array([CLASSES[int(probabilities(frame).argmax())] for _, frame in rows])
    other, rejected = ~np.isin(truth, CLASSES), scores > THRESHOLDS[kind]
    assert 0 < rejected[~other].sum() < len(rejected[~other])
    assert (found["images"], found["defective"], found["map"]) == (len(rows), 9, kind)
    assert found["image_auroc"] == pytest.approx(roc_auc_score(other, scores))
    assert found["average_precision"] == pytest.approx(average_precision_score(other, scores))
    assert found["false_rejects"] == int((rejected & ~other).sum())
    assert found["misses"] == int((~rejected & other).sum())
    beyond = {"classes": int((~other & (scores > 1)).sum()), "others": int((other & (scores > 1)).sum())}
    assert found["classification"]["beyond_every_class"] == (beyond if kind == "mahalanobis" else None)
    assert kind == "head" or beyond["classes"] > found["false_rejects"]
    novelty = found["classification"]["out_of_distribution"]
    assert novelty["prevalence"] == pytest.approx(other.mean())
    assert novelty["f1"] == pytest.approx(f1_score(other, rejected))
    assert novelty["f1_of_all"] == pytest.approx(f1_score(other, np.ones_like(other)))
    for name, chosen in (("all", ~other), ("accepted", ~other & ~rejected)):
        measured, present = found["classification"][name], sorted(set(truth[chosen]))
        assert measured["images"] == int(chosen.sum())
        assert measured["accuracy"] == pytest.approx(accuracy_score(truth[chosen], labels[chosen]))
        assert measured["macro_f1"] == pytest.approx(
            f1_score(truth[chosen], labels[chosen], labels=present, average="macro")
        )


def test_confusions_classes_and_folders_are_told(
    sorter: Path, labelled: tuple[Path, Folders], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, folders = labelled
    found = evaluate(capsys, sorter, folder)
    classification = found["classification"]
    assert classification["absent"] == ["nut"]
    assert classification["confusions"] == [
        {"kind": "washer", "taken_for": "bolt", "images": 3, "of": len(folders["washer"])},
        {"kind": "bolt", "taken_for": "nut", "images": 2, "of": len(folders["bolt"])},
    ]
    assert classification["correct"] == {"bolt": len(folders["bolt"]) - 2, "washer": len(folders["washer"]) - 3}
    # Classes first, in the order of the bundle.
    assert [kind["kind"] for kind in found["kinds"]] == ["bolt", "washer", "coin", "key"]
    assert [kind["image_auroc"] is None for kind in found["kinds"]] == [True, True, False, False]
    by_path = {one["path"]: one for one in found["results"]}
    one = by_path[str(folder / "test" / "coin" / "00.png")]
    assert one["class"] == CLASSES[int(probabilities(folders["coin"][0]).argmax())]
    assert one["probability"] == pytest.approx(probabilities(folders["coin"][0]).max(), rel=1e-4)

    assert main(["evaluate", str(sorter), str(folder)]) == 0
    text = capsys.readouterr().out
    assert "of 2 classes, 9 of none of them (coin, key)" in text
    assert "no images of nut" in text
    assert f"most often confused: washer for bolt (3 of {len(folders['washer'])})" in text
    assert f"({9 / found['images']:.1%} of the images)" in text
    beyond, of = classification["beyond_every_class"], found["images"] - 9
    assert (
        f"threshold 1, beyond every class: {beyond['classes']} of {of} images of the classes rejected "
        f"({beyond['classes'] / of:.1%}), {9 - beyond['others']} of 9 of none passed" in text
    )


def test_the_name_of_a_class_or_folder_reaches_no_terminal_unescaped(
    labelled: tuple[Path, Folders], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red = {name: f"{name}\x1b[31m\n" for name in CLASSES}
    path = classifier_bundle(tmp_path / "red.flaw", classifier={"classes": list(red.values())}).path
    root = tmp_path / "images"
    for name in ("washer", "bolt", "coin"):
        shutil.copytree(labelled[0] / "test" / name, root / "test" / (red.get(name) or "coin\x1b[32m"))
    assert main(["evaluate", str(path), str(root)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "no images of nut\\x1b[31m\\n:" in out
    assert "washer\\x1b[31m\\n for bolt\\x1b[31m\\n (3 of" in out
    assert "(coin\\x1b[32m)" in out
    assert "\nwasher\\x1b[31m\\n " in out
    assert main(["evaluate", str(path), str(labelled[0])]) == 2
    err = capsys.readouterr().err
    assert ("\x1b" in err, err.count("\n")) == (False, 1)
    assert "bolt\\x1b[31m\\n, nut" in err


def test_without_other_images_there_is_no_auroc_and_a_line_says_so(
    sorter: Path, labelled: tuple[Path, Folders], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(labelled[0] / "test" / "bolt", tmp_path / "test" / "bolt")
    found = evaluate(capsys, sorter, tmp_path)
    assert (found["image_auroc"], found["average_precision"]) == (None, None)
    assert found["classification"]["out_of_distribution"] is None
    assert found["classification"]["all"]["images"] == len(labelled[1]["bolt"])
    assert main(["evaluate", str(sorter), str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "all images are of classes: no AUROC" in text
    assert "of none passed" not in text


def test_all_of_the_classes_rejected_leaves_no_accepted_ones(
    sorter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test" / "bolt").mkdir(parents=True)
    write_image(tmp_path / "test" / "bolt" / "dark.png", np.zeros((16, 20), np.uint8))
    assert evaluate(capsys, sorter, tmp_path)["classification"]["accepted"] is None
    assert main(["evaluate", str(sorter), str(tmp_path)]) == 0
    assert "images of classes" in capsys.readouterr().out


def test_images_of_another_size_are_brought_to_that_of_the_bundle(
    sorter: Path, labelled: tuple[Path, Folders], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, images in labelled[1].items():
        (tmp_path / "test" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            write_image(tmp_path / "test" / name / f"{number:02}.png", image.repeat(3, axis=0).repeat(2, axis=1))
    plain, large = evaluate(capsys, sorter, labelled[0]), evaluate(capsys, sorter, tmp_path)
    assert large["classification"] == plain["classification"]


@pytest.mark.parametrize("form", ["npz", "idx"])
def test_images_of_a_file_measure_what_the_same_in_folders_do(
    form: str, labelled: tuple[Path, Folders], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = dict(zip((*CLASSES, "coin", "key"), "01278", strict=True))
    path = classifier_bundle(tmp_path / "digits.flaw", classifier={"classes": ["0", "1", "2"]}).path
    for name in labelled[1]:
        shutil.copytree(labelled[0] / "test" / name, tmp_path / "folders" / "test" / numbers[name])
    images = np.concatenate([np.stack(frames) for frames in labelled[1].values()])
    labels = np.repeat([int(numbers[name]) for name in labelled[1]], [len(frames) for frames in labelled[1].values()])
    data = tmp_path / "digits.npz"
    if form == "npz":
        np.savez(data, x_test=images, y_test=labels)
    else:
        data = tmp_path / "idx"
        data.mkdir()
        for kind, array in (("images", images), ("labels", labels.astype(np.uint8))):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (data / f"t10k-{kind}-idx{array.ndim}-ubyte").write_bytes(head + array.tobytes())
    of_folders, of_file = evaluate(capsys, path, tmp_path / "folders"), evaluate(capsys, path, data)
    paths = [one.pop("path") for one in of_file["results"]]
    assert len(set(paths)) == len(images)
    assert f"{data}: test image 0" in paths
    for one in of_folders["results"]:
        del one["path"]
    assert of_file == of_folders


def test_a_file_without_a_class_is_refused_in_one_line(
    sorter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", x_test=np.stack(frames_of(2)), y_test=[3, 4])
    assert main(["evaluate", str(sorter), str(tmp_path / "a.npz")]) == 2
    captured = capsys.readouterr()
    assert "a.npz has labels 3, 4; expected some that are a class of the bundle: bolt, nut, washer" in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")


def folder_without_a_class(root: Path) -> None:
    (root / "test" / "coin").mkdir(parents=True)
    write_image(root / "test" / "coin" / "0.png", frames_of(1)[0])


def empty_class(root: Path) -> None:
    (root / "test" / "bolt").mkdir(parents=True)


def colour(root: Path) -> None:
    (root / "test" / "bolt").mkdir(parents=True)
    write_image(root / "test" / "bolt" / "0.png", frames_of(1, channels=3)[0])


def no_larger_than_a_stamp(root: Path) -> None:
    (root / "test" / "bolt").mkdir(parents=True)
    write_image(root / "test" / "bolt" / "0.png", np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda root: None, "no folder test/"),
        (lambda root: (root / "test").mkdir(), "holds no folder; expected a folder with the name of a class"),
        (
            folder_without_a_class,
            "holds coin; expected a folder with the name of a class of the bundle: bolt, nut, washer",
        ),
        (empty_class, "holds no image"),
        (colour, "0.png"),
        (no_larger_than_a_stamp, "0.png"),
    ],
)
def test_a_folder_that_says_nothing_is_refused_in_one_line(
    make: Any, complaint: str, sorter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    assert main(["evaluate", str(sorter), str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")
