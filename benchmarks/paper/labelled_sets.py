"""Labelled images for a few-shot experiment, grey and of one size: what is fitted, what may choose, what is tested."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.datasets import Dataset
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import read_image
from flawline.runtime.progress import progress
from flawline.runtime.resizing import resize_into

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

Images = npt.NDArray[np.uint8]

SIDE_PX = 128
"""Height and width of all images, as in the paper."""

GOOD = "good"


@dataclass(frozen=True, eq=False)
class Split:
    """Good images to fit, and labelled ones, none of which is among them.

    Attributes:
        fit: uint8 (n, 128, 128).
        images: uint8 (m, 128, 128).
        kinds: Of each of these, "good" or the name of the flaw.
        names: Of each, unique, without a path.
        may_choose: bool (m,), from which the labelled ones are drawn.
        may_test: bool (m,), which are evaluated unless they were drawn.
    """

    fit: Images
    images: Images
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    may_choose: npt.NDArray[np.bool_]
    may_test: npt.NDArray[np.bool_]


class LabelledSet(Protocol):
    """Images with labels, and how they are divided."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def per_kind(self) -> bool:
        """Whether each kind of flaw is a category of its own; else all of them together are one, as in the paper."""

    @property
    def divisions(self) -> int | None:
        """How many different splits there are; None for as many as are asked for."""

    def split(self, number: int) -> Split:
        """One of them, from 0 on.

        Raises:
            InputError: There are too few images.
        """


class FileSet:
    """Image files, all read at once: 16 KiB each.

    Args:
        dataset: Which files.
        per_kind: Whether each kind of flaw is a category.
        seed: Of the first draw of images to fit, where the set has no division of its own.

    Raises:
        InputError: An image cannot be read.
    """

    def __init__(self, dataset: Dataset, *, per_kind: bool, seed: int) -> None:
        self.name = dataset.name
        self.per_kind = per_kind
        self.divisions = None if dataset.shares_good else 1
        self._dataset = dataset
        self._seed = seed
        # Before the long work of reading them.
        dataset.split(None, 0, seed)
        paths = [*dataset.good, *(item.path for item in dataset.test)]
        images = stack(grey_square(read_image(path)) for path in progress(paths, label=f"reading {dataset.name}"))
        self._images = dict(zip(paths, images, strict=True))

    def split(self, number: int) -> Split:
        """The images to fit are drawn with the seed and this number, unless the set comes divided."""
        drawn = self._dataset.split(None, 0, self._seed + number)
        kinds = tuple(item.kind for item in drawn.test)
        every = np.ones(len(kinds), np.bool_)
        return Split(
            fit=np.stack([self._images[path] for path in drawn.fit]),
            images=np.stack([self._images[item.path] for item in drawn.test]),
            kinds=kinds,
            names=tuple(f"{item.kind}/{item.path.name}" for item in drawn.test),
            may_choose=every,
            may_test=every,
        )


def stack(images: Iterable[Images]) -> Images:
    """Images as one array, uint8 (N, 128, 128)."""
    found = list(images)
    return np.stack(found) if found else np.empty((0, SIDE_PX, SIDE_PX), np.uint8)


def grey_square(image: Images) -> Images:
    """An image in grey and at 128 x 128, uint8.

    Args:
        image: uint8 (height, width) or (height, width, 3) RGB.
    """
    grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    square = np.empty((SIDE_PX, SIDE_PX), np.uint8)
    resize_into(grey, square, "area")
    return square
