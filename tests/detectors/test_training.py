"""Training on real digits: it learns, stops early, resumes bit for bit, and says when it diverges."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from flawline.detectors import checkpoint as checkpoints
from flawline.detectors.autoencoder import Autoencoder
from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.encoder_classifier import EncoderClassifier
from flawline.detectors.pse_loss import PSELoss
from flawline.detectors.training import DivergedError, TrainingResult, train
from flawline.detectors.training_images import ArrayImages
from flawline.detectors.training_options import TrainingOptions
from flawline.runtime.errors import DeviceError, InputError

Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


QUICK = {"epochs": 4, "batch_size": 40, "validation_share": 0.2, "learning_rate": 3e-3}


def trained(
    digits: Digits, name: str = "fully-connected", checkpoint: Path | None = None, **changes: object
) -> tuple[Autoencoder, TrainingResult]:
    network = build_autoencoder(name, 28, 28, bottleneck=16, seed=1)
    options = TrainingOptions(**{**QUICK, **changes})  # type: ignore[arg-type]
    return network, train(network, ArrayImages(digits[0]), options, checkpoint=checkpoint)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("name", "epochs"), [("fully-connected", 15), ("convolutional", 8)])
def test_reconstruction_error_falls_below_that_of_the_mean_image(digits: Digits, name: str, epochs: int) -> None:
    network, result = trained(digits, name, epochs=epochs, batch_size=20, learning_rate=1e-2)
    image = ArrayImages(digits[0]).batch(np.arange(150))
    with torch.no_grad():
        error = float((network(image) - image).square().mean())
    assert error < float(image.var(0, correction=0).mean())
    training = [loss for loss, _ in result.epochs]
    assert len(result.epochs) == epochs
    assert training[-1] < training[0] / 2
    assert not network.training


def test_proximally_sensitive_error_is_what_falls_when_it_is_asked_for(digits: Digits) -> None:
    image = ArrayImages(digits[0]).batch(np.arange(150))
    untrained = build_autoencoder("fully-connected", 28, 28, bottleneck=16, seed=1)
    network, result = trained(digits, epochs=8, loss="pse", sigma=1.0)
    with torch.no_grad():
        before, after = (float(PSELoss(1.0)(each(image), image)) for each in (untrained, network))
    assert after < before / 2
    assert result.epochs[-1][0] < result.epochs[0][0]


def test_two_trainings_with_one_seed_are_equal_and_with_another_are_not(digits: Digits) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, result = trained(digits, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second, again = trained(digits, seed=7)
    third, _ = trained(digits, seed=8)
    assert result == again
    assert same(first.state_dict(), second.state_dict())
    assert not same(first.state_dict(), third.state_dict())


@pytest.mark.parametrize("name", ["fully-connected", "convolutional"])
def test_resumed_training_is_that_which_ran_through(digits: Digits, tmp_path: Path, name: str) -> None:
    through, whole = trained(digits, name, checkpoint=tmp_path / "through.pt")
    _, first = trained(digits, name, checkpoint=tmp_path / "halves.pt", epochs=2)
    resumed, second = trained(digits, name, checkpoint=tmp_path / "halves.pt")
    assert first.epochs == whole.epochs[:2]
    assert second == whole
    assert same(through.state_dict(), resumed.state_dict())
    assert (tmp_path / "through.pt").read_bytes() == (tmp_path / "halves.pt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["halves.pt", "through.pt"]


def test_finished_training_gives_its_best_weights_again(digits: Digits, tmp_path: Path) -> None:
    network, result = trained(digits, checkpoint=tmp_path / "run.pt")
    written = (tmp_path / "run.pt").stat().st_mtime_ns
    again, repeated = trained(digits, checkpoint=tmp_path / "run.pt")
    assert repeated == result
    assert same(network.state_dict(), again.state_dict())
    assert (tmp_path / "run.pt").stat().st_mtime_ns == written


def test_training_stops_when_patience_runs_out_and_keeps_the_best_weights(digits: Digits) -> None:
    few = (digits[0][:20], digits[1][:20])
    network, result = trained(few, "fully-connected", epochs=200, patience=3, learning_rate=0.03, validation_share=0.5)
    assert result.stopped_early
    assert len(result.epochs) == result.best_epoch + 3 < 200
    validation = [loss for _, loss in result.epochs]
    assert validation[result.best_epoch - 1] == min(validation)
    shorter, best = trained(
        few, "fully-connected", epochs=result.best_epoch, patience=99, learning_rate=0.03, validation_share=0.5
    )
    assert best.epochs == result.epochs[: result.best_epoch]
    assert same(network.state_dict(), shorter.state_dict())


def test_diverging_training_keeps_the_last_good_epoch(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that became NaN on its way stands for whatever makes a loss NaN."""
    good, result = trained(digits, checkpoint=tmp_path / "good.pt", epochs=2)
    images = ArrayImages(digits[0])
    batch, calls = images.batch, 0
    per_epoch = 4  # 120 images in batches of 40, 30 held out

    def broken(indices: npt.NDArray[np.int64]) -> Tensor:
        nonlocal calls
        calls += 1
        return batch(indices) * (float("nan") if calls == 2 * per_epoch + 3 else 1)

    monkeypatch.setattr(images, "batch", broken)
    network = build_autoencoder("fully-connected", 28, 28, bottleneck=16, seed=1)
    path = tmp_path / "run.pt"
    message = f"became nan in epoch 3; the network has the weights of epoch {result.best_epoch}, and .*run.pt the state after epoch 2"
    with pytest.raises(DivergedError, match=message):
        train(network, images, TrainingOptions(**QUICK), checkpoint=path)  # type: ignore[arg-type]
    assert path.read_bytes() == (tmp_path / "good.pt").read_bytes()
    assert same(network.state_dict(), good.state_dict())


def test_learning_rate_that_overflows_is_a_diverged_training(digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"in epoch 1; nothing was learnt, try a lower learning rate"):
        trained(digits, "convolutional", learning_rate=1e30, checkpoint=tmp_path / "run.pt")
    assert not list(tmp_path.iterdir())


def test_last_image_alone_joins_the_batch_before_it(digits: Digits) -> None:
    """Batch normalisation cannot train on one image: 41 to train on, in batches of 40."""
    few = (digits[0][:51], digits[1][:51])
    _, result = trained(few, "convolutional", epochs=1)
    assert np.isfinite(result.epochs).all()


def test_encoder_of_a_trained_autoencoder_learns_the_classes(digits: Digits) -> None:
    images, labels = digits
    autoencoder, _ = trained(digits, "fully-connected", epochs=10)
    classifier = EncoderClassifier(autoencoder, 10, seed=0)
    options = TrainingOptions(
        loss="cross-entropy", epochs=30, batch_size=40, validation_share=0.2, learning_rate=1e-2, patience=30
    )
    result = train(classifier, ArrayImages(images), options, labels=labels)
    with torch.no_grad():
        predicted = classifier(ArrayImages(images).batch(np.arange(150))).argmax(1).numpy()
    assert (predicted == labels).mean() > 0.85
    assert result.epochs[result.best_epoch - 1][1] < 1.5  # of images it was not trained on; chance is 2.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mae"}, "loss mae: expected one of mse, pse, cross-entropy"),
        ({"sigma": -1.0}, "sigma -1.0: expected 0 or more"),
        ({"epochs": 0}, "epochs 0: expected at least 1"),
        ({"batch_size": 1}, "batch size 1: expected at least 2"),
        ({"learning_rate": float("nan")}, "learning rate nan: expected a number above 0"),
        ({"patience": 0}, "patience 0"),
        ({"validation_share": 1.0}, "validation share 1.0: expected between 0 and 1"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_option_out_of_its_range_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(**changes)  # type: ignore[arg-type]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    network = build_autoencoder("fully-connected", 8, 8, bottleneck=4)
    classifier = EncoderClassifier(network, 3, seed=0)
    images = ArrayImages(np.zeros((10, 8, 8), np.uint8))
    labels = np.arange(10) % 3
    classify = TrainingOptions(loss="cross-entropy")
    cases = [
        (network, ArrayImages(np.zeros((10, 8, 9), np.uint8)), TrainingOptions(), None, "for a network of"),
        (network, ArrayImages(np.zeros((3, 8, 8), np.uint8)), TrainingOptions(), None, "3 images, 0 of them held out"),
        (network, images, TrainingOptions(validation_share=0.9), None, "10 images, 9 of them held out"),
        (network, images, classify, None, "expected cross-entropy and labels for a classifier"),
        (network, images, TrainingOptions(), labels, "loss mse with labels"),
        (classifier, images, TrainingOptions(), None, "loss mse without labels for classifier of 3 classes"),
        (classifier, images, classify, labels[:9], r"labels int64 \(9,\); expected int64 \(10,\)"),
        (classifier, images, classify, labels + 1, "labels from 1 to 3; expected 0 to 2"),
    ]
    for model, data, options, classes, message in cases:
        with pytest.raises(InputError, match=message):
            train(model, data, options, labels=classes)  # type: ignore[arg-type]
    for path in (tmp_path, tmp_path / "missing" / "run.pt"):
        with pytest.raises(InputError, match="expected the name of a file, in a folder that exists"):
            train(network, images, TrainingOptions(), checkpoint=path)
    with pytest.raises(DeviceError, match="device warp cannot be used"):
        train(network, images, TrainingOptions(device="warp"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, "is of learning rate 0.003, received 0.001"),
        ({"batch_size": 32}, "is of batch size 40, received 32"),
        ({"seed": 1}, "is of seed 0, received 1"),
        ({"name": "convolutional"}, "is of architecture 'fully-connected, .* received 'convolutional,"),
        ({"data": 149}, "is of data "),
    ],
)
def test_checkpoint_of_another_training_is_refused(
    digits: Digits, tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object], message: str
) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "run.pt"
    trained(digits, checkpoint=path, epochs=1)
    before = path.read_bytes()
    count = changes.pop("data", 150)
    assert isinstance(count, int)
    with pytest.raises(InputError, match=message):
        trained((digits[0][:count], digits[1]), checkpoint=path, **changes)  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_groups_go_on_with_the_images_of_the_validation_they_had(digits: Digits, tmp_path: Path) -> None:
    images = ArrayImages(digits[0][:40])
    network = build_autoencoder("fully-connected", 28, 28, bottleneck=4)
    path = tmp_path / "run.pt"

    def divided(groups: npt.NDArray[np.int64], epochs: int) -> TrainingResult:
        return train(network, images, TrainingOptions(epochs=epochs), groups=groups, checkpoint=path)

    tens = np.repeat(np.arange(4), 10)
    first = divided(np.repeat([0, 1], [37, 3]), 1)
    assert (first.fitted, first.held_out) == (37, 3)
    with pytest.raises(InputError, match=r"is of data .* with validation on"):
        divided(tens, 2)
    assert len(divided(np.repeat([7, 2], [37, 3]), 2).epochs) == 2


def test_checkpoint_of_another_loss_is_refused(tmp_path: Path) -> None:
    network = build_autoencoder("fully-connected", 8, 8, bottleneck=4)
    contract = {"loss": TrainingOptions(loss="pse", sigma=0.5).loss_title}
    state = network.state_dict()
    moments = {
        name: {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(value), "exp_avg_sq": torch.zeros_like(value)}
        for name, value in network.named_parameters()
    }
    best = {name: value.clone() for name, value in state.items()}
    checkpoints.write_checkpoint(
        tmp_path / "a.pt", checkpoints.Checkpoint([(1.0, 1.0)], state, best, moments), contract
    )
    with pytest.raises(InputError, match=r"is of loss 'pse, sigma 0.5 px', received 'mse'"):
        checkpoints.read_checkpoint(tmp_path / "a.pt", network, {"loss": "mse"})
