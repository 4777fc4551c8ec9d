"""`flawline fit --detector autoencoder` as it is typed: what it prints, and one line for whatever is wrong."""

from pathlib import Path

import pytest
import torch

from flawline.__main__ import main
from flawline.runtime import bundle as bundles

QUICK = "--detector autoencoder --network fully-connected --bottleneck 16 --image-size 28 --batch-size 16 --threads 1"


def fit(good: Path, out: Path, *more: object) -> int:
    return main(["fit", str(good), "--out", str(out), *QUICK.split(), *map(str, more)])


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The complaint, behind whatever was said of the work so far."""
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, last = captured.err.splitlines()
    assert [line for line in captured.err.splitlines() if line.startswith("flawline fit: ")] == [last]
    return last


@pytest.fixture(scope="module")
def trained_once(ones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an epoch."""
    folder = tmp_path_factory.mktemp("trained")
    assert fit(ones, folder / "first.flaw", "--epochs", 1, "--checkpoint", folder / "run.pt") == 0
    return folder / "run.pt"


def test_bundle_is_made_as_the_options_say(ones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--epochs 3 --loss pse --sigma 1.5 --maps pse,saliency --learning-rate 0.003 --patience 2 --seed 4"
    assert fit(ones, tmp_path / "ones.flaw", *words.split()) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'ones.flaw'}: ")
    assert "training: fully-connected, 28 x 28 px, 1 channels, bottleneck 16; loss pse, sigma 1.5 px" in captured.err
    manifest = bundles.read(tmp_path / "ones.flaw").manifest
    assert (manifest.reconstruction.loss, manifest.map.sigma) == ("pse, sigma 1.5 px", 1.5)
    assert list(manifest.reconstruction.maps) == ["pse", "saliency"]
    assert (manifest.reconstruction.epochs, manifest.fit.seed) == (3, 4)


def test_training_goes_on_from_its_checkpoint(ones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ("--checkpoint", tmp_path / "run.pt")
    assert fit(ones, tmp_path / "half.flaw", "--epochs", 2, *run) == 0
    assert fit(ones, tmp_path / "resumed.flaw", "--epochs", 4, *run) == 0
    assert fit(ones, tmp_path / "through.flaw", "--epochs", 4) == 0
    resumed, through = (bundles.read(tmp_path / name) for name in ("resumed.flaw", "through.flaw"))
    assert resumed.hash == through.hash


def test_training_that_diverges_ends_in_one_line_and_keeps_the_last_good_checkpoint(
    ones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "run.pt"
    assert fit(ones, tmp_path / "half.flaw", "--epochs", 2, "--checkpoint", checkpoint) == 0
    # What a bad step leaves behind: weights whose products overflow.
    state = torch.load(checkpoint, weights_only=True)
    for name in ("encoder.hidden.weight", "decoder.output.weight"):
        state["network"][name] = torch.full_like(state["network"][name], 3e38)
    torch.save(state, checkpoint)
    before = checkpoint.read_bytes()
    capsys.readouterr()
    assert fit(ones, tmp_path / "made.flaw", "--epochs", 4, "--checkpoint", checkpoint) == 2
    line = only_line(capsys)
    assert "in epoch 3; the network has the weights of epoch" in line
    assert f"{checkpoint} the state after epoch 2; begin anew with a lower learning rate" in line
    assert checkpoint.read_bytes() == before
    assert not (tmp_path / "made.flaw").exists()


def test_training_that_diverges_at_once_leaves_nothing(
    ones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--network", "convolutional", "--learning-rate", 1e30, "--checkpoint", tmp_path / "run.pt")
    assert fit(ones, tmp_path / "made.flaw", *words) == 2
    assert "in epoch 1; nothing was learnt, try a lower learning rate" in only_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--bottleneck 8", "is of architecture 'fully-connected, 28 x 28 px, 1 channels, bottleneck 16', received "),
        ("--image-size 32", "received 'fully-connected, 32 x 32 px, 1 channels, bottleneck 16'; go on with the same"),
        ("--loss pse", "is of loss 'mse', received 'pse, sigma 0.5 px'"),
        ("--seed 9", "is of seed 0, received 9"),
        ("--fit-images 30", "is of data "),
    ],
)
def test_checkpoint_of_another_training_is_refused(
    words: str, message: str, ones: Path, trained_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained_once.read_bytes()
    assert fit(ones, tmp_path / "made.flaw", "--epochs", 2, "--checkpoint", trained_once, *words.split()) == 2
    assert message in only_line(capsys)
    assert trained_once.read_bytes() == before
    assert not (tmp_path / "made.flaw").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--network convolutional --image-size 30", "--image-size is 30 px; expected a multiple of 4, the stride of"),
        ("--image-size 8", "--image-size is 8 px; expected 16 to 4096"),
        ("--bottleneck 0", "a bottleneck of 0 for images of 784 values; expected 1 to 784"),
        ("--bottleneck 785", "a bottleneck of 785 for images of 784 values; expected 1 to 784"),
        ("--epochs 0", "epochs 0: expected at least 1"),
        ("--batch-size 1", "batch size 1: expected at least 2"),
        ("--learning-rate nan", "learning rate nan: expected a number above 0"),
        ("--maps error,heat", "--maps names 'heat'; expected some of error, pse, saliency, saliency-squared"),
        ("--sigma 1", "--sigma is that of --loss pse and of --maps pse; expected one of them as well"),
        ("--loss pse --sigma -1", "--sigma is -1 px"),
        ("--unscaled", "--unscaled is that of --maps pse, not of a loss; expected that map as well"),
        ("--loss pse --unscaled", "--unscaled is that of --maps pse, not of a loss; expected that map as well"),
        ("--checkpoint {tmp}/nowhere/run.pt", "expected the name of a file, in a folder that exists"),
        (
            "--fit-images 4",
            "4 images, 0 of them held out for validation; expected at least 1 held out and 2 to train on",
        ),
    ],
)
def test_option_that_cannot_be_is_refused(
    words: str, message: str, ones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(ones, tmp_path / "made.flaw", *words.format(tmp=tmp_path).split()) == 2
    assert message in only_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("checkpoint", ["nowhere/run.pt", "folder"])
def test_checkpoint_that_cannot_be_written_is_refused_before_any_image_is_read(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good"
    for folder in (good, tmp_path / "folder"):
        folder.mkdir()
    for number in range(60):
        (good / f"{number}.png").write_bytes(b"no image")
    assert fit(good, tmp_path / "made.flaw") == 2
    assert "0.png" in only_line(capsys)
    assert fit(good, tmp_path / "made.flaw", "--checkpoint", tmp_path / checkpoint) == 2
    assert f"{checkpoint}: expected the name of a file, in a folder that exists" in only_line(capsys)


def test_unscaled_is_of_the_map_and_not_of_the_loss(ones: Path, tmp_path: Path) -> None:
    words = ["--epochs", "1", "--loss", "pse", "--maps", "pse", "--sigma", "1"]
    assert fit(ones, tmp_path / "scaled.flaw", *words) == 0
    assert fit(ones, tmp_path / "unscaled.flaw", *words, "--unscaled") == 0
    scaled, unscaled = (bundles.read(tmp_path / f"{name}.flaw") for name in ("scaled", "unscaled"))
    assert scaled.features == unscaled.features
    assert (scaled.manifest.reconstruction.normalised, unscaled.manifest.reconstruction.normalised) == (True, False)
    assert scaled.manifest.threshold.score != unscaled.manifest.threshold.score
