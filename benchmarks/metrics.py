"""Accuracy of a detector, per image and per pixel; exact, deterministic, and without one array of all pixels."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import cv2
    from sklearn import metrics as sklearn_metrics
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")
    sklearn_metrics = LazyModule("sklearn.metrics", "pip install 'flawline[bench]'")

# Normal pixels are sorted in parts of this many: 16 MB of float32 at a time, whatever the size of the set.
CHUNK_PIXELS = 1 << 22


def image_auroc(defective: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float:
    """Area under the receiver operating characteristic over images.

    Args:
        defective: bool (n,), True for an image with a flaw.
        scores: float (n,), higher is more anomalous.

    Raises:
        InputError: The labels hold one class only, lengths differ or a score is not finite.
    """
    _check_images(defective, scores)
    return float(sklearn_metrics.roc_auc_score(defective, scores))


def average_precision(defective: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float:
    """Average precision over images with the defective ones as positives: sum of (R_n - R_(n-1)) P_n.

    Args:
        defective: bool (n,), True for an image with a flaw.
        scores: float (n,), higher is more anomalous.

    Raises:
        InputError: The labels hold one class only, lengths differ or a score is not finite.
    """
    _check_images(defective, scores)
    return float(sklearn_metrics.average_precision_score(defective, scores))


def pixel_auroc(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> float:
    """Area under the receiver operating characteristic over all pixels of all images.

    Exact, ties counted half (the Mann-Whitney statistic in integers). The maps are read twice, one at a time, so a
    sequence that computes each map when asked keeps memory at 4 bytes per flawed pixel and 16 MB.

    Args:
        maps: One float32 (height, width) anomaly map per image, at the resolution of its mask.
        masks: One bool (height, width) per image, True where flawed.

    Raises:
        InputError: No flawed or no normal pixel, a shape differs, or a map is not finite.
    """
    parts = [_checked(maps, masks, index)[mask] for index, mask in enumerate(masks)]
    flawed = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.float32)
    beaten = 0
    normal_pixels = 0
    for chunk in _chunks(maps, masks):
        normal_pixels += chunk.size
        beaten += int(_twice_beaten(flawed, np.sort(chunk)).sum())
    _check_pixels(flawed.size, normal_pixels)
    return beaten / (2 * flawed.size * normal_pixels)


def aupro(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]], limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to a false positive rate, divided by that rate.

    At each threshold the overlap is the mean, over the connected flawed regions (8-connectivity) of all images, of the
    share of the region that is found; the false positive rate is the share of all normal pixels above the threshold
    (Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset", section 5). Every distinct score is a threshold,
    points are joined by straight lines, the curve is cut at `limit` by interpolation. Memory: 12 bytes per flawed
    pixel and about `4 * limit` bytes per normal one.

    Args:
        maps: One float32 (height, width) anomaly map per image, at the resolution of its mask.
        masks: One bool (height, width) per image, True where flawed.
        limit: False positive rate at which to stop, in (0, 1].

    Raises:
        InputError: No flawed or no normal pixel, a shape differs, a map is not finite, or `limit` is out of range.
    """
    if not 0 < limit <= 1:
        raise InputError(f"false positive rate limit {limit}: expected a number in (0, 1]")
    flawed, weights = _regions(maps, masks)
    normal_pixels = sum(int(mask.size - np.count_nonzero(mask)) for mask in masks)
    _check_pixels(flawed.size, normal_pixels)
    budget = limit * normal_pixels

    top = _largest(_chunks(maps, masks), min(int(budget) + 1, normal_pixels))
    threshold = top[0]
    above = top[np.searchsorted(top, threshold, side="right") :]
    # A flawed pixel of weight w is found by every threshold below its score: it lifts the curve by w over all normal
    # pixels that score lower, and by w / 2 over those that score the same, where curve and axis move together.
    area = float(weights @ _twice_beaten(flawed, above)) / 2
    # The cut falls among the normal pixels that score exactly `threshold`.
    tied, rest = top.size - above.size, budget - above.size
    area += rest * float(weights[flawed > threshold].sum())
    area += rest * rest / (2 * tied) * float(weights[flawed == threshold].sum())
    return area / budget


def _regions(
    maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Flawed scores, ascending, each with the weight 1 / (pixels of its region x number of regions)."""
    scores, weights = [], []
    regions = 0
    for index, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.ravel(), minlength=count)
        scores.append(_checked(maps, masks, index)[mask])
        weights.append(1.0 / sizes[labels[mask]])
        regions += count - 1
    if not regions:
        return np.empty(0, np.float32), np.empty(0)
    ordered = np.concatenate(scores)
    order = np.argsort(ordered, kind="stable")
    return ordered[order], np.concatenate(weights)[order] / regions


def _chunks(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> Iterator[NDArray[np.float32]]:
    """The scores of normal pixels, in parts of about CHUNK_PIXELS."""
    parts: list[NDArray[np.float32]] = []
    size = 0
    for index, mask in enumerate(masks):
        parts.append(_checked(maps, masks, index)[~mask])
        size += parts[-1].size
        if size >= CHUNK_PIXELS or index == len(masks) - 1:
            yield np.concatenate(parts)
            parts, size = [], 0


def _largest(chunks: Iterator[NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """The `count` largest values and all that equal the smallest of them, ascending."""
    kept = np.empty(0, np.float32)
    for chunk in chunks:
        kept = np.concatenate([kept, chunk])
        if kept.size > count:
            kept = kept[kept >= np.partition(kept, kept.size - count)[kept.size - count]]
    kept.sort()
    return kept


def _twice_beaten(flawed: NDArray[np.float32], normal: NDArray[np.float32]) -> NDArray[np.int64]:
    """Twice the number of normal scores (ascending) below each flawed score; an equal one counts once."""
    return np.searchsorted(normal, flawed, side="left") + np.searchsorted(normal, flawed, side="right")


def _check_images(defective: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> None:
    if defective.shape != scores.shape or defective.ndim != 1:
        raise InputError(
            f"labels of shape {defective.shape} and scores of shape {scores.shape}: expected two equal lengths"
        )
    if defective.all() or not defective.any():
        found = "defective" if defective.size and defective.all() else "good"
        raise InputError(
            f"{defective.size} images, all {found}: good and defective ones are needed to measure a detector"
        )
    if not np.isfinite(scores).all():
        raise InputError(f"{np.count_nonzero(~np.isfinite(scores))} scores are NaN or infinite: expected finite scores")


def _check_pixels(flawed: int, normal: int) -> None:
    if not flawed or not normal:
        raise InputError(f"{flawed} flawed and {normal} normal pixels: both are needed to measure a map")


def _checked(
    maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]], index: int
) -> NDArray[np.float32]:
    scores = maps[index]
    if scores.shape != masks[index].shape:
        raise InputError(
            f"anomaly map {index} is {scores.shape}, its mask {masks[index].shape}: expected the same shape"
        )
    if not np.isfinite(scores).all():
        raise InputError(f"anomaly map {index} holds NaN or infinite values: expected finite scores")
    return scores
