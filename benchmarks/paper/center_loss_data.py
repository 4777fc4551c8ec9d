"""The experiments of the paper on center loss and Mahalanobis distance: normal classes, and sets out of their distribution."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.paper.mnist import Digits
from flawline.calibration.labelled_images import LabelledImages, read_images, read_labelled_images
from flawline.detectors.training_images import ArrayImages, ReadImages, TrainingImages
from flawline.runtime.errors import InputError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist has it."""

_SIDE_PX = 28
_FEWEST_CLASSES = 4
_TEST_SHARE = 0.2

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Labelled(NamedTuple):
    """Images of the normal classes.

    Attributes:
        images: N of them.
        labels: int64 (N,), 0 to K - 1.
    """

    images: TrainingImages
    labels: Labels


class Anomalies(NamedTuple):
    """Images out of the distribution: those that a second head may learn from, and others to test on."""

    train: TrainingImages
    test: TrainingImages


@dataclass(frozen=True, eq=False)
class Experiment:
    """Normal classes, which a network learns, and what is out of their distribution.

    Attributes:
        name: Of the normal classes.
        network: Which classifier.
        classes: Names of the K classes.
        train: To learn from.
        test: To test on.
        anomalies: By name. The first is the paper's; others are for how a second head does on what it was not trained with.
    """

    name: str
    network: str
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    anomalies: Mapping[str, Anomalies]

    @property
    def paper(self) -> str:
        """The anomaly set of the paper's experiment."""
        return next(iter(self.anomalies))


def read_fashion(path: Path) -> tuple[Images, Images]:
    """Fashion-MNIST's images to train on and those to test on, uint8 (N, 28, 28).

    Args:
        path: A folder of IDX files, or an `.npz` file with x_train and x_test.

    Raises:
        InputError: There is no such file, it cannot be read, or it holds something else.
    """
    train, test = (read_images(path, part=part).images.stacked() for part in ("train", "test"))
    for images in (train, test):
        if images.shape[1:] != (_SIDE_PX, _SIDE_PX):
            raise InputError(f"{path}: images of {images.shape[1:]}; expected ({_SIDE_PX}, {_SIDE_PX}) in grey")
    return train, test


def digit_experiments(
    train: Digits, test: Digits, fashion: tuple[Images, Images] | None, *, count: int | None, seed: int
) -> Iterator[Experiment]:
    """MNIST against Fashion-MNIST, where that is there, and digits 1 to 9 against 0.

    Args:
        train: Digits to learn from.
        test: Digits to test on.
        fashion: Images to train a second head on and to test on.
        count: Images of a set to train on, at most, drawn at random; None for all.
        seed: Of the drawing.

    Raises:
        InputError: A class has too few images.
    """
    everything = tuple(str(digit) for digit in range(10))
    clothes = {} if fashion is None else {"Fashion-MNIST": _anomalies(*fashion, count, seed)}
    if clothes:
        yield Experiment(
            "MNIST", "lenet", everything, _digits(train, 0, count, seed), _digits(test, 0, None, seed), clothes
        )
    zeros = _anomalies(train.of(range(1)), test.of(range(1)), count, seed)
    yield Experiment(
        "MNIST 1 to 9",
        "lenet",
        everything[1:],
        _digits(train, 1, count, seed),
        _digits(test, 1, None, seed),
        {"MNIST 0": zeros} | clothes,
    )


def folder_experiments(path: Path, side_px: int, *, count: int | None, seed: int) -> Iterator[Experiment]:
    """EfficientNet-B0 on one half of a folder's classes, in the order of their names, against the other; both ways.

    Args:
        path: A folder with a folder for each class, or with those in `train` and in `test`. Without `test` a fifth of each
            class, at random, is tested on.
        side_px: To bring the images to.
        count: As for `digit_experiments`.
        seed: Of the drawing.

    Raises:
        InputError: Files cannot be read, there are fewer than four classes, or a class has too few images.
    """
    train = read_labelled_images(path, side_px)
    if len(train.classes) < _FEWEST_CLASSES:
        raise InputError(f"{path}: {len(train.classes)} classes; expected at least {_FEWEST_CLASSES}, two in each half")
    if (path / "test").is_dir():
        test = read_labelled_images(path, side_px, part="test")
        if test.classes != train.classes:
            raise InputError(f"{path}: train and test are of different classes; expected the same folders in both")
    else:
        train, test = _divided(train, seed)
    middle = len(train.classes) // 2
    halves = (range(middle), range(middle, len(train.classes)))
    for normal, other in (halves, halves[::-1]):
        yield Experiment(
            f"{path.name}, {_span(train.classes, normal)}",
            "efficientnet-b0",
            tuple(train.classes[index] for index in normal),
            _half(train, normal, count, seed),
            _half(test, normal, None, seed),
            {
                _span(train.classes, other): Anomalies(
                    _half(train, other, count, seed).images, _half(test, other, None, seed).images
                )
            },
        )


def _digits(digits: Digits, first: int, count: int | None, seed: int) -> Labelled:
    there = np.flatnonzero(digits.labels >= first)
    chosen = there[_draw(len(there), count, seed)]
    labels = digits.labels[chosen] - first
    if not np.bincount(labels, minlength=10 - first).all():
        raise InputError(f"{len(chosen)} digits from {first} to 9, and not every one of them; expected some of each")
    return Labelled(ArrayImages(digits.images[chosen]), labels)


def _anomalies(train: Images, test: Images, count: int | None, seed: int) -> Anomalies:
    if not len(train) or not len(test):
        raise InputError(f"{len(train)} anomalous images to train on and {len(test)} to test on; expected some of both")
    return Anomalies(ArrayImages(train[_draw(len(train), count, seed)]), ArrayImages(test))


def _draw(there: int, count: int | None, seed: int) -> Labels:
    if count is None or count >= there:
        return np.arange(there)
    return np.sort(np.random.default_rng(seed).permutation(there)[:count])


def _divided(images: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    generator = np.random.default_rng(seed)
    tested = np.zeros(len(images), bool)
    for label in range(len(images.classes)):
        own = generator.permutation(np.flatnonzero(images.labels == label))
        tested[own[: max(1, round(_TEST_SHARE * len(own)))]] = True
    return images.chosen(np.flatnonzero(~tested)), images.chosen(np.flatnonzero(tested))


def _half(images: LabelledImages, classes: range, count: int | None, seed: int) -> Labelled:
    there = np.flatnonzero(np.isin(images.labels, classes))
    chosen = images.chosen(there[_draw(len(there), count, seed)])
    return Labelled(ReadImages.of(chosen), chosen.labels - classes.start)


def _span(classes: tuple[str, ...], half: range) -> str:
    return f"{classes[half[0]]} to {classes[half[-1]]}"
