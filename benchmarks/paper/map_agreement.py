"""How far two maps of one image point at the same pixels (Feeney and others, 2021, section 3.1).

Maps that explain a score, such as saliency, are compared with maps of the error itself. Both are at least 0 and of different
size, so that each is divided by its maximum first; agreement and distance ask only for the order of the pixels.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

Maps = npt.NDArray[np.floating[Any]]


class Agreement(NamedTuple):
    """How the maps of B images agree.

    Attributes:
        shared: int64 (B,), of the K largest pixels of the reference those that are among the K largest of the other.
        distance_px: float64 (B,), the largest distance of one of the reference's to the nearest of the other's.
        squared_difference: float64 (B,), mean over pixels, of the maps divided by their maxima.
    """

    shared: npt.NDArray[np.int64]
    distance_px: npt.NDArray[np.float64]
    squared_difference: npt.NDArray[np.float64]


def scaled_by_maximum(maps: Maps) -> npt.NDArray[np.float64]:
    """Each map divided by its maximum; one that is 0 everywhere stays so.

    Args:
        maps: float (B, height, width), at least 0.

    Returns:
        float64 (B, height, width), 0 to 1.

    Raises:
        InputError: Another shape, nothing in it, or values that are negative, NaN or infinite.
    """
    if maps.ndim != 3 or not maps.size:
        raise InputError(f"maps of shape {maps.shape}; expected (B, height, width), none of them 0")
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise InputError("a map holds NaN, infinite or negative values; expected finite ones of at least 0")
    values = maps.astype(np.float64)
    maxima = values.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(values, maxima, out=np.zeros_like(values), where=maxima > 0), np.float64)


def largest_pixels(maps: Maps, count: int) -> npt.NDArray[np.int64]:
    """The K largest pixels of each map. Of equals those that come first, row by row.

    Args:
        maps: float (B, height, width).
        count: K, 1 to height * width.

    Returns:
        int64 (B, K, 2), row and column, largest first.

    Raises:
        InputError: K is no such number.
    """
    batch, height, width = maps.shape
    if not 1 <= count <= height * width:
        raise InputError(f"the {count} largest pixels of {height} x {width}; expected 1 to {height * width}")
    order = np.argsort(-maps.reshape(batch, -1), axis=1, kind="stable")[:, :count]
    return np.stack(np.divmod(order, width), axis=-1).astype(np.int64)


def agreement(reference: Maps, other: Maps, count: int) -> Agreement:
    """Compares maps pair by pair.

    Args:
        reference: float (B, height, width), at least 0: the saliency maps in the paper.
        other: Likewise: the error maps.
        count: K, how many of the largest pixels are compared; 5 and 10 in the paper.

    Raises:
        InputError: Shapes that differ, or maps that `scaled_by_maximum` or `largest_pixels` refuses.
    """
    if reference.shape != other.shape:
        raise InputError(f"maps of shapes {reference.shape} and {other.shape}; expected the same")
    difference = scaled_by_maximum(reference) - scaled_by_maximum(other)
    first, second = largest_pixels(reference, count), largest_pixels(other, count)
    squared = ((first[:, :, None] - second[:, None]) ** 2).sum(axis=-1)
    nearest = squared.min(axis=2)
    return Agreement(
        shared=np.count_nonzero(nearest == 0, axis=1).astype(np.int64),
        distance_px=np.sqrt(nearest.max(axis=1)),
        squared_difference=(difference**2).mean(axis=(1, 2)),
    )


def agreement_frequencies(shared: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """Share of the images with each possible agreement: the paper's figure 2, and its table 1 in sums of it.

    Args:
        shared: int64 (B,), of `Agreement`.
        count: K.

    Returns:
        float64 (K + 1,), from none to all of K.

    Raises:
        InputError: There is no image, or one with more agreement than K.
    """
    if not shared.size or shared.min() < 0 or shared.max() > count:
        raise InputError(f"agreements {shared}; expected numbers from 0 to {count}")
    return np.asarray(np.bincount(shared, minlength=count + 1) / shared.size, np.float64)
