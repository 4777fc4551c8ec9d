"""How good a detector is on labelled images: per image, per pixel, per kind of flaw, and at its threshold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks import metrics
from flawline.benchmarks.datasets import Item
from flawline.runtime import Detector
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import read_image

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

MASK_THRESHOLD = 128
T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """One image after the detector.

    Attributes:
        item: The image and its label.
        score: Anomaly score.
        p_value: Conformal p-value.
        rejected: Whether the score is above the threshold.
        map: float32 (h, w), the anomaly map at its own resolution.
        size: Height and width of the image, px.
    """

    item: Item
    score: float
    p_value: float
    rejected: bool
    map: NDArray[np.float32]
    size: tuple[int, int]


@dataclass(frozen=True)
class KindResult:
    """One kind of image.

    Attributes:
        kind: "good" or the name of a flaw.
        images: Number of images.
        rejected: How many were rejected at the threshold.
        median_score: Median anomaly score.
        image_auroc: This kind against all good images; None for "good" itself.
    """

    kind: str
    images: int
    rejected: int
    median_score: float
    image_auroc: float | None


@dataclass(frozen=True)
class Evaluation:
    """What a detector is worth on one set of labelled images.

    Attributes:
        images: Number of images.
        defective: How many of them show a flaw.
        image_auroc: Area under the ROC over images.
        average_precision: Average precision over images, defective ones as positives.
        pixel_auroc: Area under the ROC over pixels; None without masks.
        aupro: Per-region overlap to a false positive rate of 0.3; None without masks.
        empty_masks: Defective images whose mask marks no pixel. Where their flaw is is not known, so they count as
            images and not as pixels.
        threshold: Scores above it are rejected.
        false_rejects: Good images that were rejected.
        misses: Defective images that were passed.
        kinds: One entry per kind, good first.
    """

    images: int
    defective: int
    image_auroc: float
    average_precision: float
    pixel_auroc: float | None
    aupro: float | None
    empty_masks: int
    threshold: float
    false_rejects: int
    misses: int
    kinds: list[KindResult]


class Computed(Sequence[T], Generic[T]):
    """A sequence whose elements are made when they are asked for, so that only one is in memory.

    Args:
        length: Number of elements.
        make: Makes the element of an index.
    """

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._length))]
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._make(index)


def score_items(detector: Detector, items: Sequence[Item]) -> Iterator[Scored]:
    """Scores labelled images, one at a time.

    Raises:
        InputError: An image cannot be read or is not of the detector's mode.
    """
    for item in items:
        frame = read_image(item.path)
        result = detector(frame)
        rejected = result.verdict == "reject"
        yield Scored(item, result.score, result.p_value, rejected, result.map, (frame.shape[0], frame.shape[1]))


def evaluate(scored: Sequence[Scored], threshold: float) -> Evaluation:
    """Measures a detector from what it said of labelled images.

    Args:
        scored: Every image once, good and defective ones.
        threshold: The threshold that the verdicts were made with.

    Raises:
        InputError: All images are of one class, or a mask is unreadable or not of its image's size.
    """
    defective = np.array([one.item.is_defective for one in scored], bool)
    scores = np.array([one.score for one in scored])
    rejected = np.array([one.rejected for one in scored], bool)
    pixel_auroc, aupro, empty_masks = _pixel_metrics(scored)
    return Evaluation(
        images=len(scored),
        defective=int(defective.sum()),
        image_auroc=metrics.image_auroc(defective, scores),
        average_precision=metrics.average_precision(defective, scores),
        pixel_auroc=pixel_auroc,
        aupro=aupro,
        empty_masks=empty_masks,
        threshold=threshold,
        false_rejects=int(np.count_nonzero(rejected & ~defective)),
        misses=int(np.count_nonzero(~rejected & defective)),
        kinds=_by_kind(scored, scores, rejected),
    )


def upsample(anomaly_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Brings an anomaly map to the size of its image, bilinear with half-pixel centres.

    Args:
        anomaly_map: float32 (h, w).
        size: Height and width of the image, px.

    Returns:
        float32 (height, width).
    """
    return np.asarray(cv2.resize(anomaly_map, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Reads a mask: 128 or more is flawed.

    Args:
        path: Grey image file.
        size: Height and width that it must have, px.

    Returns:
        bool (height, width).

    Raises:
        InputError: The mask is unreadable or of another size.
    """
    pixels = read_image(path)
    mask: NDArray[np.bool_] = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) >= MASK_THRESHOLD
    if mask.shape != size:
        raise InputError(
            f"{path}: mask of {mask.shape[1]} x {mask.shape[0]} px, its image has {size[1]} x {size[0]} px"
        )
    return mask


def _pixel_metrics(scored: Sequence[Scored]) -> tuple[float | None, float | None, int]:
    """Pixel AUROC, AUPRO and the number of empty masks."""
    if all(one.item.mask is None for one in scored):
        return None, None, 0
    known: list[tuple[Scored, NDArray[np.bool_] | None]] = []
    for one in scored:
        mask = None if one.item.mask is None else read_mask(one.item.mask, one.size)
        if mask is None or mask.any():
            known.append((one, mask))

    def mask_of(index: int) -> NDArray[np.bool_]:
        one, mask = known[index]
        return np.zeros(one.size, bool) if mask is None else mask

    maps = Computed(len(known), lambda index: upsample(known[index][0].map, known[index][0].size))
    masks = Computed(len(known), mask_of)
    return metrics.pixel_auroc(maps, masks), metrics.aupro(maps, masks), len(scored) - len(known)


def _by_kind(scored: Sequence[Scored], scores: NDArray[np.float64], rejected: NDArray[np.bool_]) -> list[KindResult]:
    kinds = np.array([one.item.kind for one in scored])
    good = kinds == "good"
    results = []
    for kind in sorted(set(kinds.tolist()), key=lambda name: (name != "good", name)):
        chosen = kinds == kind
        against_good = chosen | good
        auroc = None if kind == "good" else metrics.image_auroc(chosen[against_good], scores[against_good])
        results.append(
            KindResult(
                kind=kind,
                images=int(chosen.sum()),
                rejected=int(np.count_nonzero(rejected & chosen)),
                median_score=float(np.median(scores[chosen])),
                image_auroc=auroc,
            )
        )
    return results
