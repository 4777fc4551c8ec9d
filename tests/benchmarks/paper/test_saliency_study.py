"""The study with networks whose maps are known beforehand, and the whole command on a tiny budget."""

import argparse
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from flawline.__main__ import main
from flawline.benchmarks.commands import bench_paper_saliency
from flawline.benchmarks.paper.saliency_claims import claims
from flawline.benchmarks.paper.saliency_comparison import SeedResult
from flawline.benchmarks.paper.saliency_options import StudyOptions
from flawline.benchmarks.paper.saliency_study import Examples, measured
from flawline.benchmarks.paper.saliency_text import describe
from flawline.detectors.autoencoder import Autoencoder, ImageShape
from flawline.detectors.training import TrainingResult

Images = npt.NDArray[np.uint8]
SIDE = 28
PIXELS = SIDE * SIDE
TINY = ["--epochs", "1", "--train-images", "80"]


def shift() -> Autoencoder:
    """A network whose reconstruction is the image moved by a pixel to the right, the last of a row into the next.

    Its residual at pixel i is x[i - 1] - x[i], and its saliency |2 x[i] - x[i - 1] - x[i + 1]| times 2 / 784.
    """
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, PIXELS, bias=False))
    decoder = nn.Sequential(nn.Linear(PIXELS, PIXELS, bias=False), nn.Unflatten(1, (1, SIDE, SIDE)))
    with torch.no_grad():
        encoder[1].weight.copy_(torch.eye(PIXELS).roll(1, 0))
        decoder[0].weight.copy_(torch.eye(PIXELS))
    return Autoencoder("shift", ImageShape(1, SIDE, SIDE), PIXELS, encoder, decoder).eval()


def blocks(count: int) -> Images:
    """White rectangles: a row of the error has 2 pixels alike, of the saliency 4, on both sides of each edge."""
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    images[:, 2:20, 5:12] = 255
    return images


def dots(count: int) -> Images:
    """White pixels in the second column of the first row."""
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    images[:, 0, 1] = 255
    return images


def study(normal: Images, novel: Images) -> tuple[SeedResult, Examples]:
    training = TrainingResult(((0.02, 0.02),), 1, stopped_early=True, fitted=9, held_out=1)
    tested = {"normal": normal, "novel": novel}
    return measured(shift(), training, tested, StudyOptions(threads=1, pictured=2), seed=0, images=10)


def test_planted_maps_give_the_agreement_that_they_have() -> None:
    # More than a batch of each, and of dots no whole number of batches.
    result, examples = study(blocks(64), dots(70))
    normal, novel = result.groups["normal"], result.groups["novel"]
    assert (normal.images, novel.images) == (64, 70)
    # Row 2: (4, 5, 11, 12) and (5, 12); row 3: (4) and (5, 12); row 4: (5). So 2 of 5, and 5 of 10 with two rows and a half.
    assert normal.frequencies == {5: [0, 0, 1, 0, 0, 0], 10: [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]}
    assert (normal.majority[5].mean, normal.majority[10].mean) == (0, 0)
    assert (normal.distance_px[5].mean, normal.distance_px[10].mean) == (1, 1)
    # 36 of 784 pixels are 1 in the saliency alone, squared or not.
    assert normal.saliency.mean == pytest.approx(36 / 784)
    assert normal.gain.mean == pytest.approx(0)
    # (0, 1), (0, 0), (0, 2) and (0, 1), (0, 2); behind them come the first of those that are 0.
    assert novel.frequencies == {5: [0] * 5 + [1], 10: [0] * 10 + [1]}
    assert (novel.distance_px[5].mean, novel.distance_px[10].mean) == (0, 0)
    # Scaled, the saliency is 1/2, 1, 1/2 where the error is 0, 1, 1.
    assert novel.saliency.mean == pytest.approx(2 * 0.5**2 / 784)
    assert novel.squared_saliency.mean == pytest.approx((0.25**2 + 0.75**2) / 784)
    assert novel.mean_squared_error == pytest.approx(2 / 784)
    # |r| is 0, 1, 1 where the gradient is 1, 2, 1.
    assert novel.through_network.mean == pytest.approx(1)

    verdicts = [one.verdict for one in claims([result])]
    assert verdicts[:4] == ["the other way round"] * 4
    assert verdicts[5] == "the other way round"
    text = describe([result])
    assert "- top 10: fewer novel images agree in most pixels: the other way round" in text
    assert "- novel: squared saliency is closer to the error: the other way round" in text
    assert "Every direction" not in text

    assert examples.groups == ["normal", "normal", "novel", "novel"]
    np.testing.assert_array_equal(examples.images, np.concatenate((blocks(2), dots(2))))
    np.testing.assert_array_equal(examples.maps.reconstruction[1:3], np.roll(examples.images[1:3], 1, axis=2))


def test_planted_maps_the_other_way_round_give_the_papers_direction() -> None:
    result, _ = study(dots(3), blocks(2))
    assert [one.verdict for one in claims([result])][:4] == ["as in the paper"] * 4


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A folder with 20 digits of each kind to train on and 5 of each to test on."""
    folder = tmp_path_factory.mktemp("few")
    parts = {}
    with np.load(shared_data / "mnist" / "mnist.npz") as data:
        for part, count in (("train", 20), ("test", 5)):
            images, labels = data[f"x_{part}"], data[f"y_{part}"]
            chosen = np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(10)])
            parts |= {f"x_{part}": images[chosen], f"y_{part}": labels[chosen]}
    np.savez(folder / "mnist.npz", **parts)
    return folder


def words(data: Path, *others: str) -> list[str]:
    return ["bench", "paper", "saliency", "--data", str(data), "--threads", "1", *others]


@pytest.fixture(scope="module")
def folder(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes of seeds 7 and 8: its text, its JSON and its pictures."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("written")
    files = ["--json", str(folder / "saliency.json"), "--pictures", str(folder / "pictures")]
    with (folder / "text").open("w") as text, redirect_stdout(text):
        assert main(words(few, *TINY, "--seed", "7", "--seeds", "2", *files)) == 0
    return folder


@pytest.mark.shared_data
def test_command_trains_and_compares(folder: Path) -> None:
    written = json.loads((folder / "saliency.json").read_text())
    assert written["environment"]["cpu"]
    assert written["settings"]["training"]["loss"] == "mse"
    results = written["results"]
    assert [one["seed"] for one in results["seeds"]] == [7, 8]
    for one in results["seeds"]:
        assert (one["images"], len(one["epochs"])) == (80, 1)
        for group in one["groups"].values():
            assert group["images"] == 25
            assert [len(group["frequencies"][count]) for count in ("5", "10")] == [6, 11]
            assert sum(group["frequencies"]["10"]) == pytest.approx(1)
            assert 0 < group["mean_squared_error"] < 1
            assert group["gain"]["mean"] == pytest.approx(group["saliency"]["mean"] - group["squared_saliency"]["mean"])
    assert results["seeds"][0]["epochs"] != results["seeds"][1]["epochs"]
    assert len(results["claims"]) == 6
    assert all(len(one["ours"]) == 2 for one in results["claims"])
    assert results["paper"]["distance_px"]["10"] == {"normal": 8.14, "novel": 8.9}


@pytest.mark.shared_data
def test_command_tells_and_draws(folder: Path, few: Path) -> None:
    text = (folder / "text").read_text()
    assert "tested on 25 normal digits (0 to 4) and 25 novel ones (5 to 9)" in text
    assert "top 5: maximum distance to the best match, px" in text
    assert {file.name for file in (folder / "pictures").iterdir()} == {
        f"{name}-seed-{seed}.png" for name in ("maps", "agreement") for seed in (7, 8)
    }
    for word in (str(few.parent), str(Path.home())):
        assert word not in text + (folder / "saliency.json").read_text()


@pytest.mark.shared_data
def test_a_seed_gives_the_same_figures_alone_and_after_others(folder: Path, few: Path, tmp_path: Path) -> None:
    assert main(words(few, *TINY, "--seed", "8", "--json", str(tmp_path / "alone.json"))) == 0
    alone, after = (
        json.loads(path.read_text())["results"]["seeds"][-1]
        for path in (tmp_path / "alone.json", folder / "saliency.json")
    )
    assert alone == after


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--data", "absent.npz"], "absent.npz: no such file"),
        (["--train-images", "101"], "--train-images 101: 100 normal digits are there"),
        (["--train-images", "3"], "expected at least 1 held out"),
        (["--seed", "-1"], "seed -1: expected 0 or more"),
        (["--threads", "100000"], "--threads is 100000; expected 1 to"),
        (["--json", "absent/saliency.json"], "expected the name of a file, in a folder that exists"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    few: Path, capsys: pytest.CaptureFixture[str], others: list[str], message: str
) -> None:
    assert main(words(few, *others)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("flawline bench: ")
    assert message in lines[-1]


@pytest.mark.parametrize(
    ("labels", "message"), [([0, 1, 2], "no novel digit to test on"), ([5, 6, 7], "no normal digit to test on")]
)
def test_digits_of_one_group_alone_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: list[int], message: str
) -> None:
    arrays = {"x_train": dots(3), "y_train": np.zeros(3, int), "x_test": dots(3), "y_test": np.array(labels)}
    np.savez(tmp_path / "mnist.npz", **arrays)
    assert main(words(tmp_path)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("others", [["--epochs", "0"], ["--seeds", "none"], ["--train-images", "-4"]])
def test_options_that_cannot_be_are_refused(others: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words(Path("mnist.npz"), *others))
    assert caught.value.code == 2
    assert "expected a whole number, 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("others", [[], ["novelty"]])
def test_an_experiment_must_be_one_that_is_there(others: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "paper", *others])
    assert caught.value.code == 2
    assert "EXPERIMENT" in capsys.readouterr().err


def test_full_budget_gives_way_to_what_is_asked() -> None:
    parser = argparse.ArgumentParser()
    bench_paper_saliency.add_arguments(parser)
    options = bench_paper_saliency.study_options(parser.parse_args(["--data", "x", "--full", "--seeds", "2"]))
    assert (options.epochs, options.train_images, options.seeds) == (100, None, 2)
    assert bench_paper_saliency.study_options(parser.parse_args(["--data", "x"])) == StudyOptions()
