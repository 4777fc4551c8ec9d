"""`flawline bench paper pse` on tiny budgets."""

import json
import shutil

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime.images import read_image, write_image

SIDE = 128
# Far fewer than the command's own, of which a test would take minutes.
QUICK = ["--skip-pretraining", "--threads", "1"]


def grain(generator: np.random.Generator, flaw: tuple[int, int] | None = None) -> np.ndarray:
    """Grey with 2 % of the pixels 60 levels brighter or darker, uint8 (128, 128); a flaw of 8 x 8 px is 35 brighter."""
    values = np.full((SIDE, SIDE), 128.0) + generator.normal(0, 2, (SIDE, SIDE))
    if flaw is not None:
        values[flaw[0] : flaw[0] + 8, flaw[1] : flaw[1] + 8] += 35
    specks = generator.choice([-1, 0, 1], (SIDE, SIDE), p=[0.01, 0.98, 0.01])
    values = np.where(specks, 128 + 60 * specks, values)
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """Single pixels differ more from what is reconstructed than those of a flaw, which lie together."""
    folder = tmp_path_factory.mktemp("planted")
    generator = np.random.default_rng(0)
    for name, count in (("train/good", 20), ("test/good", 14), ("test/low", 12), ("test/high", 12)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            row = {"low": 80, "high": 20}.get(name.split("/")[1])
            place = None if row is None else (row, int(generator.integers(20, 100)))
            write_image(folder / name / f"{number:02}.png", grain(generator, place))
    return folder


def measured(words, path):
    assert main(["bench", "paper", "pse", *map(str, words), "--json", str(path)]) == 0
    return json.loads(path.read_text())


@pytest.fixture(scope="session")
def found(planted, tmp_path_factory):
    return measured([*QUICK, "--folder", planted, "--draws", 3], tmp_path_factory.mktemp("found") / "pse.json")


def test_proximity_tells_flaws_from_noise_of_larger_errors(found):
    (category,) = found["results"]["detection"]["categories"]
    # Of 9 good and 14 bad ones: chance is .61, and one draw may be above.
    assert category["mse"] < 0.8
    assert category["pse"] > 0.95
    assert category["difference"] == pytest.approx(category["pse"] - category["mse"])
    for draw in found["results"]["detection"]["draws"]:
        assert draw["mse"]["sigma_px"] == 0
        assert draw["pse"]["sigma_px"] > 0


def test_labelled_images_are_five_of_each_kind_and_not_evaluated(found, planted):
    there = {"good": 14, "low": 12, "high": 12}
    draws = found["results"]["detection"]["draws"]
    assert len({tuple(draw["labelled"]) for draw in draws}) == len(draws) == 3
    for draw in draws:
        assert len(set(draw["labelled"])) == 15
        for kind in there:
            assert sum(name.startswith(f"{kind}/") for name in draw["labelled"]) == 5
        assert draw["good"] == there["good"] - 5
        assert draw["defective"] == there["low"] + there["high"] - 10
        assert draw["fitted"] == 20


def test_what_is_evaluated_has_no_part_in_the_choice(found, planted, tmp_path):
    first = found["results"]["detection"]["draws"][0]
    folder = tmp_path / planted.name
    shutil.copytree(planted, folder)
    flat = np.full((SIDE, SIDE), 255, np.uint8)
    for path in (folder / "test").rglob("*.png"):
        if f"{path.parent.name}/{path.name}" not in first["labelled"]:
            # All that was evaluated turned upside down: what was good is far off, what was bad is not.
            write_image(path, flat if path.parent.name == "good" else read_image(planted / "train/good/00.png"))
    result = measured([*QUICK, "--folder", folder, "--draws", 1], tmp_path / "pse.json")
    (draw,) = result["results"]["detection"]["draws"]
    assert draw["labelled"] == first["labelled"]
    for error in ("mse", "pse"):
        for name in ("components", "sigma_px", "labelled_average_precision"):
            assert draw[error][name] == first[error][name]
        assert draw[error]["average_precision"] < first[error]["average_precision"]


def test_the_same_seed_gives_the_same_and_another_another(found, planted, tmp_path):
    again = measured([*QUICK, "--folder", planted, "--draws", 1], tmp_path / "a.json")
    other = measured([*QUICK, "--folder", planted, "--draws", 1, "--seed", 7], tmp_path / "b.json")
    first, second, third = (one["results"]["detection"]["draws"][0] for one in (found, again, other))
    assert second == first
    assert third["labelled"] != first["labelled"]


def test_kinds_are_categories_of_their_own(planted, tmp_path, capsys):
    result = measured([*QUICK, "--folder", planted, "--per-kind", "--draws", 1], tmp_path / "pse.json")
    categories = result["results"]["detection"]["categories"]
    name = planted.name
    assert [one["category"] for one in categories] == [f"{name}, high", f"{name}, low"]
    assert [(one["good"], one["defective"]) for one in categories] == [(9, 7), (9, 7)]
    printed = capsys.readouterr().out
    assert "0.66 ± 0.3" in printed
    assert "11 of 15" in printed
    assert "As in the paper, PSE is above MSE on average" in printed


def test_where_the_direction_differs_it_is_said_and_why(tmp_path, capsys):
    """Flaws of single pixels among good images that differ in areas: the other way round."""
    folder = tmp_path / "points"
    generator = np.random.default_rng(1)
    for name, count in (("train/good", 12), ("test/good", 20), ("test/point", 20)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            values = np.full((SIDE, SIDE), 100, np.uint8)
            row, column = generator.integers(8, 96, 2)
            values[row : row + 24, column : column + 24] += generator.integers(30, 60, dtype=np.uint8)
            if name.endswith("point"):
                values[4, int(generator.integers(4, 124))] += 70
            write_image(folder / name / f"{number:02}.png", values)
    result = measured([*QUICK, "--folder", folder, "--draws", 2], tmp_path / "pse.json")
    assert result["results"]["detection"]["categories"][0]["difference"] < 0
    printed = capsys.readouterr().out
    assert "Unlike the paper, PSE is not above MSE on average" in printed
    assert "points: PSE not above MSE" in printed


@pytest.mark.slow
@pytest.mark.shared_data
def test_detection_on_the_real_tiles(shared_data, tmp_path):
    words = ["--data", shared_data, "--sets", "aitex", "--draws", 1]
    result = measured([*QUICK, *words], tmp_path / "pse.json")
    (category,) = result["results"]["detection"]["categories"]
    assert category["category"] == "aitex-02"
    assert category["pse"] > category["defective"] / (category["good"] + category["defective"])


@pytest.mark.shared_data
def test_pre_training_on_a_tiny_budget(shared_data, tmp_path, capsys):
    words = ["--data", shared_data, "--skip-detection", "--threads", "1", "--steps", 3, "--bottlenecks", "4,6"]
    words += ["--images", "80,120", "--labelled", 40, "--classifier-epochs", 1, "--tested", 100, "--runs", 2]
    result = measured(words, tmp_path / "pse.json")
    pretraining = result["results"]["pretraining"]
    points = [(one["bottleneck"], one["images"]) for one in pretraining["points"]]
    assert points == [(4, 120), (6, 120), (6, 80)]
    # Two losses at each, and each bottleneck without pre-training, all twice.
    assert len(pretraining["runs"]) == 2 * (2 * 3 + 2)
    for point in pretraining["points"]:
        assert 0 < point["active"]["none"] <= 1
        assert point["difference"] == pytest.approx(point["accuracy"]["pse"] - point["accuracy"]["mse"])
    assert result["settings"]["pretraining"]["sigma_px"] == 0.5
    printed = capsys.readouterr().out
    assert "budget: 3 steps of 16 images" in printed
    assert "keeps 41% of the squared error" in printed


BAD_INPUT = {
    "nothing": (["--skip-detection", "--skip-pretraining"], "nothing to do"),
    "no data": (["--skip-detection"], "no --data DIR"),
    "no data for tiles": (["--skip-pretraining", "--sets", "magnetic-tile"], "no --data DIR"),
    "no folder": (["--skip-pretraining", "--folder", "{tmp}/nowhere"], "does not exist"),
    "no digits": (["--skip-detection", "--data", "{tmp}"], "mnist.npz"),
    "no fabric": (["--skip-pretraining", "--sets", "aitex", "--data", "{tmp}"], "streams.json"),
    "too many shots": (["--skip-pretraining", "--folder", "{planted}", "--shots", "12"], "12 images of 'high'"),
    "falling bottlenecks": (["--skip-detection", "--data", "{tmp}", "--bottlenecks", "8,4"], "that rise"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_status_2(case, planted, tmp_path, capsys):
    words, message = BAD_INPUT[case]
    assert main(["bench", "paper", "pse", *(word.format(tmp=tmp_path, planted=planted) for word in words)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""


@pytest.mark.parametrize("words", [["--sets", "bottles"], ["--draws", "0"], ["--seed", "-1"], ["--shots", "x"]])
def test_words_that_mean_nothing_are_refused(words):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "paper", "pse", *words])
    assert stopped.value.code == 2


@pytest.mark.shared_data
def test_more_images_than_there_are_is_refused(shared_data, capsys):
    words = ["--data", str(shared_data), "--skip-detection", "--images", "70000"]
    assert main(["bench", "paper", "pse", *words]) == 2
    assert "70000 images to pre-train on; MNIST has 60000" in capsys.readouterr().err
