"""Which pixels of a coarse map, with which weights, make up a pixel of a finer one; and the taps of a Gaussian."""

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

Upsampling = Literal["bilinear", "nearest"]


class Taps(NamedTuple):
    """Pixel i of a resampled axis is ``source[low[i]] + weight[i] * (source[high[i]] - source[low[i]])``.

    Attributes:
        low: int32 (target,).
        high: int32 (target,).
        weight: float32 (target,), 0 .. 1.
    """

    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]


def resampling_taps(source: int, target: int, upsampling: Upsampling) -> Taps:
    """Taps that resample an axis.

    Args:
        source: Size of the axis that is read.
        target: Size of the axis that is made.
        upsampling: "bilinear": half-pixel centres, clamped at the border. "nearest": index floor(i * source / target).

    Returns:
        One pair of taps per pixel of the target.

    Raises:
        InputError: Another kind of upsampling.
    """
    pixels = np.arange(target)
    if upsampling == "nearest":
        low = (pixels * source // target).astype(np.int32)
        return Taps(low, low, np.zeros(target, np.float32))
    if upsampling != "bilinear":
        raise InputError(f"upsampling: received {upsampling!r}, expected 'bilinear' or 'nearest'")
    centre = np.clip((pixels + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(centre).astype(np.int32)
    weight = (centre - low).astype(np.float32)
    # A neighbour without weight is not read: were it NaN, it would spread.
    return Taps(low, np.where(weight > 0, low + 1, low).astype(np.int32), weight)


def gaussian_taps(sigma: float) -> npt.NDArray[np.float32]:
    """Weights of a sampled Gaussian, cut at radius ceil(3 sigma).

    Args:
        sigma: Standard deviation in pixels, at least 0.

    Returns:
        float32 (2 * ceil(3 sigma) + 1,), their sum 1; one tap of 1 at sigma 0.

    Raises:
        InputError: sigma is negative or not finite.
    """
    if not math.isfinite(sigma) or sigma < 0:
        raise InputError(f"sigma: received {sigma}, expected a finite number of pixels of at least 0")
    radius = math.ceil(3 * sigma)
    if radius == 0:
        return np.ones(1, np.float32)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps: npt.NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return taps


def reflect(size: int, radius: int) -> npt.NDArray[np.int32]:
    """Pixel that stands for each position of an axis with `radius` pixels of border, reflected about the edge pixels.

    Args:
        size: Pixels of the axis.
        radius: Pixels of border on either side; may exceed the size.

    Returns:
        int32 (size + 2 * radius,), 0 .. size - 1. The edge pixel is not repeated (OpenCV's BORDER_REFLECT_101).
    """
    if size == 1:
        return np.zeros(1 + 2 * radius, np.int32)
    period = 2 * (size - 1)
    phase = np.arange(-radius, size + radius) % period
    return np.minimum(phase, period - phase).astype(np.int32)
