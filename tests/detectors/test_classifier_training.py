"""Training of classifiers on real digits, with and without center loss, and of the second head on their features."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from flawline.detectors.classifier import Classifier
from flawline.detectors.classifier_training import deep_features, train_classifier, train_second_head
from flawline.detectors.classifiers import build_classifier
from flawline.detectors.second_head import SecondHead
from flawline.detectors.training import DivergedError, TrainingResult, train
from flawline.detectors.training_images import ArrayImages
from flawline.detectors.training_options import TrainingOptions
from flawline.runtime.errors import InputError

Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

QUICK = {"loss": "cross-entropy", "epochs": 4, "batch_size": 25, "validation_share": 0.2, "learning_rate": 3e-3}
CENTERED = {**QUICK, "center_weight": 0.1}


def trained(
    digits: Digits, checkpoint: Path | None = None, classes: int = 10, **changes: object
) -> tuple[Classifier, TrainingResult]:
    network, _ = build_classifier("lenet", classes, seed=1)
    options = TrainingOptions(**{**CENTERED, **changes})  # type: ignore[arg-type]
    return network, train_classifier(network, ArrayImages(digits[0]), digits[1], options, checkpoint=checkpoint)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("center_weight", [0.0, 0.1, 1.0])
def test_digits_are_told_apart(digits: Digits, center_weight: float) -> None:
    network, result = trained(digits, center_weight=center_weight, epochs=25, patience=25)
    with torch.no_grad():
        predicted = network(ArrayImages(digits[0]).batch(np.arange(150))).argmax(1).numpy()
    assert (predicted == digits[1]).mean() > 0.85
    assert result.epochs[-1][0] < result.epochs[0][0] / 2
    assert not network.training


def spread(network: Classifier, digits: Digits) -> float:
    """Mean variance of the deep features within classes, over that between the means of the classes."""
    features = deep_features(network, ArrayImages(digits[0])).astype(np.float64)
    means = np.stack([features[digits[1] == label].mean(0) for label in range(10)])
    within = np.square(features - means[digits[1]]).sum(1).mean()
    return float(within / np.square(means - means.mean(0)).sum(1).mean())


def test_center_loss_draws_the_features_of_a_class_together(digits: Digits) -> None:
    spreads = [spread(trained(digits, center_weight=weight, epochs=20)[0], digits) for weight in (0.0, 1.0)]
    assert spreads[1] < spreads[0] / 2


@pytest.mark.parametrize("center_weight", [0.0, 0.1])
def test_resumed_training_is_that_which_ran_through(digits: Digits, tmp_path: Path, center_weight: float) -> None:
    """Centers go on from where they were: with fresh ones the losses of the third epoch would be others."""
    through, whole = trained(digits, tmp_path / "through.pt", center_weight=center_weight)
    _, first = trained(digits, tmp_path / "halves.pt", epochs=2, center_weight=center_weight)
    if center_weight:
        centers = torch.load(tmp_path / "halves.pt", weights_only=True)["objective"]["centers"]
        assert centers.shape == (10, 84)
        assert (centers != 0).any(1).all()
    resumed, second = trained(digits, tmp_path / "halves.pt", center_weight=center_weight)
    assert first.epochs == whole.epochs[:2]
    assert second == whole
    assert same(through.state_dict(), resumed.state_dict())
    assert (tmp_path / "through.pt").read_bytes() == (tmp_path / "halves.pt").read_bytes()


def test_what_efficientnet_leaves_out_at_random_is_the_same_after_resumption(digits: Digits, tmp_path: Path) -> None:
    images = ArrayImages(np.repeat(np.repeat(digits[0][:24, 6:22, 6:22], 2, 1), 2, 2))
    results = []
    for path, steps in ((tmp_path / "through.pt", (2,)), (tmp_path / "halves.pt", (1, 2))):
        for epochs in steps:
            network, _ = build_classifier("efficientnet-b0", 10, side_px=32)
            options = TrainingOptions(loss="cross-entropy", epochs=epochs, batch_size=8, center_weight=0.01)
            results.append(train_classifier(network, images, digits[1][:24], options, checkpoint=path))
    assert results[0] == results[2]
    assert (tmp_path / "through.pt").read_bytes() == (tmp_path / "halves.pt").read_bytes()


def test_learning_rate_that_overflows_is_a_diverged_training(digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"in epoch 1; nothing was learnt, try a lower learning rate"):
        trained(digits, tmp_path / "run.pt", learning_rate=1e30)
    assert not list(tmp_path.iterdir())


def test_diverging_training_keeps_the_centers_of_the_last_good_epoch(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that became infinite on its way stands for whatever makes a loss so."""
    good, _ = trained(digits, tmp_path / "good.pt", epochs=2)
    images = ArrayImages(digits[0])
    batch, calls = images.batch, 0
    per_epoch = 7  # 120 images in batches of 25, 30 held out in two

    def broken(indices: npt.NDArray[np.int64]) -> Tensor:
        nonlocal calls
        calls += 1
        return batch(indices) * (float("inf") if calls == 2 * per_epoch + 3 else 1)

    monkeypatch.setattr(images, "batch", broken)
    network, _ = build_classifier("lenet", 10, seed=1)
    with pytest.raises(DivergedError, match=r"became nan in epoch 3; .*run.pt the state after epoch 2"):
        train_classifier(network, images, digits[1], TrainingOptions(**CENTERED), checkpoint=tmp_path / "run.pt")  # type: ignore[arg-type]
    assert (tmp_path / "run.pt").read_bytes() == (tmp_path / "good.pt").read_bytes()
    assert same(network.state_dict(), good.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"center_weight": 1.0}, r"is of loss 'cross-entropy \+ 0.1 x center loss, rate 0.5', received 'cross-entropy \+ 1.0"),
        ({"center_weight": 0.0}, "received 'cross-entropy'"),
        ({"center_rate": 0.25}, "received 'cross-entropy .* rate 0.25'"),
        ({"classes": 11}, "is of architecture 'lenet, 28 x 28 px, 1 channels, 10 classes', received 'lenet, .* 11 classes'"),
        ({"learning_rate": 1e-3}, "is of learning rate 0.003, received 0.001"),
    ],
)  # fmt: skip
def test_checkpoint_of_another_training_is_refused(
    digits: Digits, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    trained(digits, tmp_path / "run.pt", epochs=1)
    with pytest.raises(InputError, match=message):
        trained(digits, tmp_path / "run.pt", **changes)


def test_checkpoint_of_other_labels_is_refused(digits: Digits, tmp_path: Path) -> None:
    trained(digits, tmp_path / "run.pt", epochs=1)
    with pytest.raises(InputError, match="is of data "):
        trained((digits[0], (digits[1] + 1) % 10), tmp_path / "run.pt")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (None, "what the loss has learnt is not of this loss"),
        ({}, "what the loss has learnt is not of this loss"),
        ([1.0], "what the loss has learnt is not of this loss"),
        ({"centers": torch.zeros(10, 83)}, r"centers is torch.float32 \(10, 83\), not torch.float32 \(10, 84\)"),
        ({"centers": torch.zeros(10, 84, dtype=torch.float64)}, "centers is torch.float64"),
        ({"centers": torch.full((10, 84), float("nan"))}, "centers holds NaN or infinity"),
        ({"centers": torch.zeros(1, 84).expand(10, 84)}, "centers is no dense, contiguous tensor"),
    ],
)
def test_checkpoint_without_proper_centers_is_refused(
    digits: Digits, tmp_path: Path, objective: object, message: str
) -> None:
    path = tmp_path / "run.pt"
    trained(digits, path, epochs=1)
    content = torch.load(path, weights_only=True)
    del content["objective"]
    torch.save(content if objective is None else {**content, "objective": objective}, path)
    with pytest.raises(InputError, match=f"run.pt is damaged or none of ours .*{message}"):
        trained(digits, path)


def test_centers_where_there_are_none_are_refused(digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    trained(digits, path, epochs=1, center_weight=0.0)
    content = torch.load(path, weights_only=True)
    assert "objective" not in content
    torch.save({**content, "objective": {"centers": torch.zeros(10, 84)}}, path)
    with pytest.raises(InputError, match="what the loss has learnt is not of this loss"):
        trained(digits, path, center_weight=0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"center_weight": -0.1}, "center weight -0.1: expected 0 or more"),
        ({"center_weight": float("nan")}, "center weight nan: expected 0 or more"),
        ({"center_rate": 0.0}, "center rate 0.0: expected above 0, up to 1"),
        ({"loss": "mse"}, "center weight 0.1 with loss mse: expected cross-entropy"),
    ],
)
def test_option_out_of_its_range_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(**{**CENTERED, **changes})  # type: ignore[arg-type]


def test_deep_features_are_those_of_evaluation(digits: Digits) -> None:
    images = ArrayImages(np.repeat(np.repeat(digits[0][:5, 6:22, 6:22], 2, 1), 2, 2))
    network, _ = build_classifier("efficientnet-b0", 3, side_px=32)
    found = deep_features(network, images, batch_size=2)
    with torch.no_grad():
        expected = network.eval().deep_features(images.batch(np.arange(5))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (found.dtype, found.shape) == (np.float32, (5, 1280))


def test_deep_features_that_are_no_numbers_are_refused(digits: Digits) -> None:
    network, _ = build_classifier("lenet", 3)
    with torch.no_grad():
        network.get_parameter("fc2.bias")[0] = float("inf")
    with pytest.raises(InputError, match="deep features of lenet are NaN or infinite"):
        deep_features(network, ArrayImages(digits[0][:3]))


HEAD = {"loss": "binary-cross-entropy", "epochs": 30, "batch_size": 25, "validation_share": 0.2}


@pytest.fixture(scope="module")
def features(digits: Digits) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Deep features of the digits from 1 on, and of the zeros that the network was not trained with."""
    normal = digits[1] > 0
    network, _ = build_classifier("lenet", 9, seed=1)
    options = TrainingOptions(**{**QUICK, "epochs": 15})  # type: ignore[arg-type]
    train_classifier(network, ArrayImages(digits[0][normal]), digits[1][normal] - 1, options)
    return deep_features(network, ArrayImages(digits[0][normal])), deep_features(
        network, ArrayImages(digits[0][~normal])
    )


def test_second_head_gives_normal_images_the_higher_probability(
    features: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], tmp_path: Path
) -> None:
    normal, anomalous = features
    head = SecondHead(84, seed=1)
    result = train_second_head(head, normal, anomalous, TrainingOptions(**HEAD), checkpoint=tmp_path / "head.pt")  # type: ignore[arg-type]
    with torch.no_grad():
        found = [head(torch.from_numpy(part))[:, 0].numpy() for part in features]
    assert np.median(found[0]) > 0.9
    assert np.median(found[1]) < 0.5
    assert not head.training
    halves = SecondHead(84, seed=1)
    for epochs in (1, 30):
        options = TrainingOptions(**{**HEAD, "epochs": epochs})  # type: ignore[arg-type]
        again = train_second_head(halves, normal, anomalous, options, checkpoint=tmp_path / "halves.pt")
    assert again == result
    assert same(head.state_dict(), halves.state_dict())


@pytest.mark.parametrize("shapes", [((5, 83), (5, 84)), ((5, 84), (0, 84)), ((84,), (5, 84))])
def test_features_that_do_not_fit_the_head_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    normal, anomalous = (np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(InputError, match=r"(normal|anomalous) features \(.*\); expected \(1 or more, 84\)"):
        train_second_head(SecondHead(84), normal, anomalous, TrainingOptions(**HEAD))  # type: ignore[arg-type]


def test_loss_that_is_none_of_the_network_is_refused(digits: Digits) -> None:
    network, _ = build_classifier("lenet", 10)
    images = ArrayImages(digits[0])
    for loss in ("mse", "binary-cross-entropy"):
        with pytest.raises(
            InputError, match=f"loss {loss} with labels for lenet, .*; expected cross-entropy and labels"
        ):
            train(network, images, TrainingOptions(loss=loss), labels=digits[1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="labels from 0 to 9; expected 0 to 8"):
        train_classifier(build_classifier("lenet", 9)[0], images, digits[1], TrainingOptions(loss="cross-entropy"))
    with pytest.raises(InputError, match=r"images of \(1, 27, 28\) for a network of \(1, 28, 28\)"):
        train_classifier(network, ArrayImages(digits[0][:, 1:]), digits[1], TrainingOptions(loss="cross-entropy"))
