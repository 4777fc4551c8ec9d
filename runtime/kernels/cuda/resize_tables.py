"""How OpenCV resizes uint8 images, as tables: which pixels, with which weights, make up a pixel of the resized axis.

The tables and the arithmetic that goes with them (`preprocess.cu`) repeat `cv2.resize` bit for bit, where its x86 code runs.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

_ONE = 1 << 11
"""Weight 1 of OpenCV's fixed-point arithmetic."""

_LEAST_PART = 1e-3
"""Parts of a pixel up to this are left out of an average."""


class Pairs(NamedTuple):
    """Pixel i of a resized axis is ``low_weight[i] * source[low[i]] + high_weight[i] * source[high[i]]``.

    Attributes:
        low: int32 (target,).
        high: int32 (target,).
        low_weight: int32 (target,), in units of 1 / 2048.
        high_weight: int32 (target,), in units of 1 / 2048.
    """

    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]
    low_weight: npt.NDArray[np.int32]
    high_weight: npt.NDArray[np.int32]


class Runs(NamedTuple):
    """Pixel i of a resized axis is the weighted sum of source pixels side by side.

    Attributes:
        first: int32 (target,): the first of them.
        starts: int32 (target + 1,): where their weights start.
        weights: float32 (starts[target],).
    """

    first: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    @property
    def end(self) -> npt.NDArray[np.int32]:
        """One past the last source pixel of each, int32 (target,)."""
        return self.first + np.diff(self.starts)


class Interpolation(NamedTuple):
    """Bilinear interpolation.

    Attributes:
        rows: Of the height.
        columns: Of the width.
    """

    rows: Pairs
    columns: Pairs


class Averaging(NamedTuple):
    """Averages over boxes.

    Attributes:
        rows: Of the height.
        columns: Of the width.
        scale: What sums are multiplied by, a float32.
        half_up: Whether halves are then rounded up; else to even.
    """

    rows: Runs
    columns: Runs
    scale: float
    half_up: bool


def resize_tables(
    source: tuple[int, int], target: tuple[int, int], interpolation: Literal["area", "linear"]
) -> Interpolation | Averaging | None:
    """How frames of one size are brought to another, as `flawline.runtime.extractor` does it with OpenCV.

    Args:
        source: Height and width of the frame, in pixels.
        target: Height and width of the network's input.
        interpolation: What the bundle says. An average is one only where both sides shrink.

    Returns:
        The tables; None where the sizes are equal and pixels are copied.

    Raises:
        InputError: A side is not positive, or another interpolation.
    """
    if min(*source, *target) < 1:
        raise InputError(f"sizes {source} and {target}: expected sides of 1 px or more")
    if interpolation not in ("area", "linear"):
        raise InputError(f"interpolation: received {interpolation!r}, expected 'area' or 'linear'")
    if source == target:
        return None
    shrinks = source[0] >= target[0] and source[1] >= target[1]
    halves = source == (2 * target[0], 2 * target[1])
    if not halves and not (shrinks and interpolation == "area"):
        # At the border OpenCV takes one column whole, but one row twice, each time with its part of the weight.
        return Interpolation(_pairs(source[0], target[0]), _pairs(source[1], target[1], clamped=True))
    factors = source[0] // target[0], source[1] // target[1]
    if source == (factors[0] * target[0], factors[1] * target[1]):
        scale = float(np.float32(1 / (factors[0] * factors[1])))
        return Averaging(_whole_runs(factors[0], target[0]), _whole_runs(factors[1], target[1]), scale, half_up=halves)
    return Averaging(_runs(source[0], target[0]), _runs(source[1], target[1]), 1.0, half_up=False)


def _pairs(source: int, target: int, clamped: bool = False) -> Pairs:
    scale = 1 / (target / source)
    centre = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    if clamped:
        centre = np.clip(centre, np.float32(0), np.float32(source - 1))
    low = np.floor(centre)
    weight = centre - low
    return Pairs(
        np.clip(low, 0, source - 1).astype(np.int32),
        np.clip(low + 1, 0, source - 1).astype(np.int32),
        np.rint((1 - weight) * np.float32(_ONE)).astype(np.int32),
        np.rint(weight * np.float32(_ONE)).astype(np.int32),
    )


def _whole_runs(factor: int, target: int) -> Runs:
    """Runs of as many pixels each, which are summed up before they are scaled."""
    starts = np.arange(target + 1, dtype=np.int32) * factor
    return Runs(starts[:-1], starts, np.ones(factor * target, np.float32))


def _runs(source: int, target: int) -> Runs:
    """Runs of the pixels of a box, the first and the last of them with the part that is inside."""
    scale = 1 / (target / source)
    low = np.arange(target) * scale
    high = low + scale
    size = np.minimum(scale, source - low)
    last = np.minimum(np.floor(high), source - 1)
    whole = np.minimum(np.ceil(low), last)
    before, after = whole - low, high - last
    first = (whole - (before > _LEAST_PART)).astype(np.int32)
    lengths = (last + (after > _LEAST_PART)).astype(np.int32) - first
    starts = np.r_[0, np.cumsum(lengths)].astype(np.int32)
    owners = np.repeat(np.arange(target), lengths)
    pixels = first[owners] + np.arange(starts[-1]) - starts[owners]
    parts = np.where(pixels < whole[owners], before[owners], np.minimum(np.minimum(after, 1), size)[owners])
    parts = np.where((pixels >= whole[owners]) & (pixels < last[owners]), 1, parts)
    return Runs(first, starts, (parts / size[owners]).astype(np.float32))
