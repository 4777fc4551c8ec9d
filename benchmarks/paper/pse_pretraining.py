"""Pre-training with Proximally Sensitive Error and mean squared error (Gudi and others, 2022, section 4.2) on MNISTX.

A fully connected autoencoder is trained on images without labels, with either loss; a classifier on its encoder is then
trained on a few labelled images, all layers of it, and tested. A classifier on an encoder that was not pre-trained is
measured beside them.

The output layer begins at the mean of the images: else a short training learns little else. The hidden units are counted
that answer to any image at all, since ReLU lets others die for good.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.paper.mnist import CLASSES, Digits, read_mnist
from flawline.benchmarks.paper.mnistx import SIDE_PX, mnistx
from flawline.benchmarks.paper.pse_detection import spread
from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.training_options import TrainingOptions
from flawline.runtime.errors import InputError

if TYPE_CHECKING:
    from flawline.detectors.autoencoder import Autoencoder
    from flawline.detectors.training_images import ArrayImages

Loss = Literal["none", "mse", "pse"]
LOSSES: tuple[Loss, ...] = ("none", "mse", "pse")

_AT_ONCE = 500
# Of a sigmoid's output that begins at the mean: pixels that are always black would begin at minus infinity.
_LEAST = 1e-3


@dataclass(frozen=True)
class PretrainingStudy:
    """What is asked. Not in the paper: noise, steps, batches, rates and the number of labelled images.

    Attributes:
        bottlenecks: Sizes of the hidden layer, rising, compared at the middle number of images.
        images: Numbers of images to pre-train on, rising, compared at the middle bottleneck.
        steps: Of each pre-training, whatever the number of images, up to the end of an epoch.
        labelled: Images that the classifier is trained on, a tenth of them held out to stop by.
        classifier_epochs: At most.
        tested: Images of the test part.
        runs: Draws of images, noise and initial weights.
        seed: Of the first.
        sigma_px: Of PSE, 0.5 in the paper.
        noise: Share of the pixels that are replaced.
        batch_size: Images of a step.
        learning_rate: Of Adam.
    """

    bottlenecks: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    images: tuple[int, ...] = (500, 1000, 2000, 5000, 10000)
    steps: int = 2000
    labelled: int = 500
    classifier_epochs: int = 30
    tested: int = 10_000
    runs: int = 3
    seed: int = 0
    sigma_px: float = 0.5
    noise: float = 0.1
    batch_size: int = 16
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Refuses what cannot be compared."""
        for name, values in (("bottlenecks", self.bottlenecks), ("numbers of images", self.images)):
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise InputError(f"{name} {list(values)}; expected whole numbers that rise, each once")

    @property
    def middle(self) -> tuple[int, int]:
        """The bottleneck at which numbers of images are compared, and the number at which bottlenecks are."""
        return self.bottlenecks[len(self.bottlenecks) // 2], self.images[len(self.images) // 2]

    @property
    def points(self) -> tuple[tuple[int, int], ...]:
        """Bottleneck and number of images of every pre-training, each once."""
        bottleneck, images = self.middle
        sizes = [(one, images) for one in self.bottlenecks]
        return tuple(dict.fromkeys(sizes + [(bottleneck, number) for number in self.images]))


FULL = PretrainingStudy(
    bottlenecks=(4, 8, 16, 32, 64, 128, 256, 512),
    images=(500, 1000, 2000, 5000, 10_000, 20_000, 60_000),
    steps=20_000,
    runs=5,
)
"""The budget of `--full`: hours."""


class Accuracy(NamedTuple):
    """A classifier on an encoder.

    Attributes:
        run: From 0 on.
        bottleneck: Size of the hidden layer.
        images: That the encoder was pre-trained on; 0 without pre-training.
        loss: Of the pre-training.
        accuracy: Share of the test images in the right class.
        active: Share of the hidden units that answer to any of 500 of these images before the classifier is trained.
        pretraining_epochs: After the best of which pre-training was left; 0 without it.
    """

    run: int
    bottleneck: int
    images: int
    loss: Loss
    accuracy: float
    active: float
    pretraining_epochs: int


def pretrain(data: Path, study: PretrainingStudy) -> Iterator[Accuracy]:
    """Reads the images at once, and returns every run of every point with every loss, and without pre-training.

    Args:
        data: MNIST, as `read_mnist` takes it.
        study: What is asked.

    Raises:
        InputError: MNIST cannot be read, or has fewer images than asked for.
        DivergedError: A loss became NaN or infinite.
        MissingExtraError: torch is not installed.
    """
    train, test = read_mnist(data)
    for what, wanted, there in (
        ("to pre-train on", study.images[-1], len(train.images)),
        ("with labels", study.labelled, len(train.images)),
        ("to test on", study.tested, len(test.images)),
    ):
        if wanted > there:
            raise InputError(f"{wanted} images {what}; MNIST has {there}: ask for fewer")
    return itertools.chain.from_iterable(_run(train, test, run, study) for run in range(study.runs))


def _run(train: Digits, test: Digits, run: int, study: PretrainingStudy) -> Iterator[Accuracy]:
    from flawline.detectors.training_images import ArrayImages

    seed = study.seed + run
    generator = np.random.Generator(np.random.Philox(key=seed))
    # Sorted by class in the file.
    unlabelled, labelled = (
        generator.permutation(len(train.images))[:count] for count in (study.images[-1], study.labelled)
    )
    tested = generator.permutation(len(test.images))[: study.tested]
    pool = mnistx(train.images[unlabelled], study.noise, seed=3 * seed)
    classified = ArrayImages(mnistx(train.images[labelled], study.noise, seed=3 * seed + 1))
    judged = ArrayImages(mnistx(test.images[tested], study.noise, seed=3 * seed + 2))
    labels = train.labels[labelled], test.labels[tested]
    for bottleneck in study.bottlenecks:
        fresh = build_autoencoder("fully-connected", SIDE_PX, SIDE_PX, bottleneck=bottleneck, seed=seed)
        found = _classify(fresh, classified, judged, labels, seed, study)
        yield Accuracy(run, bottleneck, 0, "none", found, _active(fresh, classified), 0)
    for bottleneck, count in study.points:
        images = ArrayImages(pool[:count])
        for loss in ("mse", "pse"):
            autoencoder = build_autoencoder("fully-connected", SIDE_PX, SIDE_PX, bottleneck=bottleneck, seed=seed)
            epochs = _train(autoencoder, images, loss, seed, study)
            found = _classify(autoencoder, classified, judged, labels, seed, study)
            yield Accuracy(run, bottleneck, count, loss, found, _active(autoencoder, images), epochs)


def _train(
    autoencoder: "Autoencoder", images: "ArrayImages", loss: Literal["mse", "pse"], seed: int, study: PretrainingStudy
) -> int:
    from flawline.detectors.training import train

    _begin_at_mean(autoencoder, images)
    validation_share = TrainingOptions.validation_share
    steps = math.ceil(len(images) * (1 - validation_share) / study.batch_size)
    epochs = math.ceil(study.steps / steps)
    options = TrainingOptions(
        loss=loss,
        sigma=study.sigma_px,
        epochs=epochs,
        batch_size=study.batch_size,
        learning_rate=study.learning_rate,
        # Steps are what is compared: the weights of the best epoch are kept, but nothing stops early.
        patience=epochs,
        seed=seed,
    )
    return train(autoencoder, images, options).best_epoch


def _begin_at_mean(autoencoder: "Autoencoder", images: "ArrayImages") -> None:
    import torch

    total = torch.zeros(tuple(images.shape))
    for indices in _batches(len(images)):
        total += images.batch(indices).sum(dim=0)
    mean = (total / len(images)).flatten().clamp(_LEAST, 1 - _LEAST)
    with torch.no_grad():
        autoencoder.get_parameter("decoder.output.bias").copy_(torch.logit(mean))


def _active(autoencoder: "Autoencoder", images: "ArrayImages") -> float:
    import torch

    with torch.no_grad():
        codes = autoencoder.encoder(images.batch(next(_batches(len(images)))))
    return float((codes > 0).any(dim=0).double().mean())


def _batches(count: int) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers from 0 to below the count, so many at once."""
    return (np.arange(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE))


def _classify(
    autoencoder: "Autoencoder",
    classified: "ArrayImages",
    judged: "ArrayImages",
    labels: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    seed: int,
    study: PretrainingStudy,
) -> float:
    """Accuracy of a classifier on the encoder."""
    import torch

    from flawline.detectors.encoder_classifier import EncoderClassifier
    from flawline.detectors.training import train

    classifier = EncoderClassifier(autoencoder, CLASSES, seed=seed)
    options = TrainingOptions(
        loss="cross-entropy",
        epochs=study.classifier_epochs,
        batch_size=study.batch_size,
        learning_rate=study.learning_rate,
        seed=seed,
    )
    train(classifier, classified, options, labels=labels[0])
    right = 0
    with torch.no_grad():
        for indices in _batches(len(judged)):
            right += int((classifier(judged.batch(indices)).argmax(dim=1).numpy() == labels[1][indices]).sum())
    return right / len(judged)


class Point(NamedTuple):
    """A bottleneck and a number of images over the runs.

    Attributes:
        bottleneck: Size of the hidden layer.
        images: To pre-train on.
        accuracy: By loss, mean over runs; `none` is the same for all numbers of images.
        std: Likewise; None for one run.
        active: Of `Accuracy`, by loss, mean over runs.
        difference: PSE less MSE, mean over runs.
        difference_std: Of the differences run by run.
    """

    bottleneck: int
    images: int
    accuracy: dict[Loss, float]
    std: dict[Loss, float | None]
    active: dict[Loss, float]
    difference: float
    difference_std: float | None


def points(found: Sequence[Accuracy], study: PretrainingStudy) -> list[Point]:
    """The points of which all runs so far are complete, in the order of the study."""
    by: dict[tuple[int, int, Loss], dict[int, Accuracy]] = {}
    for one in found:
        by.setdefault((one.bottleneck, one.images, one.loss), {})[one.run] = one
    points = []
    for bottleneck, images in study.points:
        of_loss = {loss: by.get((bottleneck, 0 if loss == "none" else images, loss), {}) for loss in LOSSES}
        runs = sorted(set.intersection(*(set(values) for values in of_loss.values())))
        if not runs:
            continue
        values = {loss: np.array([of_run[run].accuracy for run in runs]) for loss, of_run in of_loss.items()}
        active = {loss: float(np.mean([of_run[run].active for run in runs])) for loss, of_run in of_loss.items()}
        difference = values["pse"] - values["mse"]
        points.append(
            Point(
                bottleneck,
                images,
                {loss: float(one.mean()) for loss, one in values.items()},
                {loss: spread(one) for loss, one in values.items()},
                active,
                float(difference.mean()),
                spread(difference),
            )
        )
    return points
