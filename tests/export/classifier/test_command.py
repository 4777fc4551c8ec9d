"""`flawline fit --detector center-loss` as it is typed: what goes, and one line for whatever is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flawline.__main__ import main
from flawline.detectors.classifiers import CLASSIFIERS, build_classifier
from flawline.runtime import bundle as bundles

NOWHERE = Path("/nowhere")


def fit(data: Path, out: Path, *more: object) -> int:
    command = ["fit", str(data), "--out", str(out), "--detector", "center-loss", "--threads", "1"]
    return main([*command, *map(str, more)])


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The complaint, behind whatever was said of the work so far."""
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, last = captured.err.splitlines()
    assert [line for line in captured.err.splitlines() if line.startswith("flawline")] == [last]
    return last


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--epochs 0", "epochs 0: expected at least 1"),
        ("--batch-size 0", "batch size 0: expected at least 2"),
        ("--learning-rate 0", "learning rate 0.0: expected a number above 0"),
        ("--learning-rate -1", "learning rate -1.0: expected a number above 0"),
        ("--center-weight -1", "center weight -1.0: expected 0 or more"),
        ("--center-weight nan", "center weight nan: expected 0 or more"),
        ("--patience 0", "patience 0: expected at least 1"),
        ("--head-epochs 0 --anomalies others", "second head: epochs 0: expected at least 1"),
        ("--head-epochs 7", "--head-epochs is of a second head; expected --anomalies as well"),
        ("--projection sparse", "--projection sparse without --dim: expected how many features remain"),
        ("--dim 0", "--dim is 0; expected 1 or more"),
        ("--dim 2000", "--dim is 2000; lenet gives 84 deep features: expected no more"),
        ("--network efficientnet-b0 --dim 2000", "--dim is 2000; efficientnet-b0 gives 1280 deep features"),
        ("--dim 10 --projection none", "--projection none keeps all 84 deep features of lenet; leave out --dim 10"),
        ("--image-size 0", "images of 0 px for lenet; expected 28 px"),
        ("--network efficientnet-b0 --image-size 0", "images of 0 px for efficientnet-b0; expected a multiple of 32"),
        (
            "--network net.onnx --layer f --image-size 0",
            "--image-size is 0 px; expected the height and width of net.onnx",
        ),
        ("--weights nofile.pth", "weights nofile.pth: no such file"),
        ("--weights net.onnx", "weights net.onnx: expected a file ending in .pth"),
        *(
            (f"--network net.onnx --layer f {option}", f"{option.split()[0]} does not go with net.onnx")
            for option in (
                "--center-weight 5",
                "--learning-rate 3",
                "--batch-size 7",
                "--patience 2",
                "--epochs 0",
                "--weights random",
                "--checkpoint c.ckpt",
            )
        ),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(
    given: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(NOWHERE, tmp_path / "a.flaw", *given.split()) == 2
    assert message in only_line(capsys)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_deep_features_are_as_many_as_described(name: str) -> None:
    network, _ = build_classifier(name, 2)
    assert network.feature_dimension == CLASSIFIERS[name].features


def test_training_begins_with_the_weights_of_a_file(archive: Path, tmp_path: Path) -> None:
    weights = tmp_path / "lenet.pth"
    torch.save(build_classifier("lenet", 10, seed=5)[0].state_dict(), weights)
    assert fit(archive, tmp_path / "a.flaw", "--epochs", 1, "--weights", weights) == 0
    assert bundles.read(tmp_path / "a.flaw").manifest.network.weights.origin == "trained on the images from lenet.pth"


def test_random_weights_are_fresh_ones(archive: Path, tmp_path: Path) -> None:
    assert fit(archive, tmp_path / "a.flaw", "--epochs", 1, "--weights", "random") == 0
    assert fit(archive, tmp_path / "b.flaw", "--epochs", 1) == 0
    assert bundles.read(tmp_path / "a.flaw").hash == bundles.read(tmp_path / "b.flaw").hash


def test_weights_of_another_network_are_one_line(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "other.npz"
    np.savez(weights, stem=np.zeros(3, np.float32))
    assert fit(archive, tmp_path / "a.flaw", "--weights", weights) == 2
    assert "stem has no place in" in only_line(capsys)


def test_anomalies_of_another_mode_are_named_before_training(
    archive: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(others) as grey:
        np.savez(tmp_path / "colour.npz", images=np.repeat(grey["x_train"][:10, ..., None], 3, axis=3))
    assert fit(archive, tmp_path / "a.flaw", "--anomalies", tmp_path / "colour.npz") == 2
    captured = capsys.readouterr().err
    assert "colour.npz: train image 0, of no class, is in colour" in captured
    assert "digits.npz: train image 0 is grey: expected all images to be alike" in captured
    assert "training:" not in captured


@pytest.mark.parametrize(
    ("flag", "default"),
    [
        ("--weights FILE", "begins the training; fresh ones without"),
        ("--image-size N", "28 for lenet, 224 for efficientnet-b0, 224 for .onnx"),
        ("--epochs N", "10 for lenet, 30 for efficientnet-b0"),
        ("--patience N", "5"),
        ("--batch-size N", "128 for lenet, 32 for efficientnet-b0"),
        ("--dim D", "all"),
        ("--factors {", "fp32"),
        ("--shrinkage S", "oas or ledoit-wolf (default: ledoit-wolf)"),
    ],
)
def test_help_says_the_defaults_that_differ(flag: str, default: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    # Behind the usage line, which names the option too, up to the next option.
    of_option = text[text.rindex(f" {flag}") :]
    assert f"; center-loss: {default}" in of_option[: of_option.index(" --", 4)]
