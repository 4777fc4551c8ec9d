"""Proximally Sensitive Error: the squared error that counts more where errors lie together."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError


class ProximalError(NamedTuple):
    """Proximally Sensitive Error of some frames.

    Attributes:
        map: float32 (B, height, width), at least 0: the error of each pixel.
        maximum: float32 (B,): the largest error of each frame.
        mean: float32 (B,): the mean error of each frame, which the paper calls PSE.
    """

    map: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]


def proximity_taps(sigma: float, *, normalised: bool = True) -> npt.NDArray[np.float32]:
    """Weights of a Gaussian at the integers x with |x| <= 2 sigma, along one axis.

    Args:
        sigma: Standard deviation in pixels, at least 0.
        normalised: Whether they are scaled to sum 1. If not, their products for x and y are those of equation 4.

    Returns:
        float32 (2 * floor(2 sigma) + 1,); one tap of 1 at sigma 0.

    Raises:
        InputError: sigma is negative or not finite.
    """
    if not math.isfinite(sigma) or sigma < 0:
        raise InputError(f"sigma: received {sigma}, expected a finite number of pixels of at least 0")
    if sigma == 0:
        return np.ones(1, np.float32)
    radius = math.floor(2 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps: npt.NDArray[np.float32] = (
        weights / (weights.sum() if normalised else math.sqrt(2 * math.pi) * sigma)
    ).astype(np.float32)
    return taps


def proximally_sensitive_error(
    image: npt.NDArray[Any], reconstruction: npt.NDArray[np.float32], sigma: float, *, normalised: bool = True
) -> ProximalError:
    """Proximally Sensitive Error (Gudi and others, 2022), equations 3 and 4, in float64 inside.

    With the residual R = image - reconstruction and a Gaussian k of sigma pixels, cut at 2 sigma::

        PSE = 1/(M N) sum_ij ((R * k)_ij)^2

    Outside the image the residual is 0: this is the convolution of equation 3 as it stands, it adds no error that was not
    there, and it is what a convolution layer computes when the same error trains a network. An error at the border
    thus counts less than one inside. At sigma 0 it is the squared error. The paper defines it on grey images; with
    several channels, each is filtered by itself and the error of a pixel is the mean over them, as that of MSE is.

    Args:
        image: uint8 or float32 (B, channels, height, width).
        reconstruction: float32 (B, channels, height, width), in the units of the image.
        sigma: Standard deviation in pixels, at least 0.
        normalised: Whether the taps are scaled to sum 1, so that errors of different sigma compare; else equation 4.

    Returns:
        The map, its maximum and its mean for each frame, in squared units of the image.

    Raises:
        InputError: Another shape or dtype, nothing to compare, or sigma is negative or not finite.
    """
    taps = proximity_taps(sigma, normalised=normalised).astype(np.float64)
    expected = "(B, channels, height, width), none of them 0"
    if image.dtype not in (np.uint8, np.float32) or image.ndim != 4 or not image.size:
        raise InputError(f"image: received {image.dtype} {image.shape}, expected uint8 or float32 {expected}")
    if reconstruction.dtype != np.float32 or reconstruction.shape != image.shape:
        raise InputError(
            f"reconstruction: received {reconstruction.dtype} {reconstruction.shape}, "
            f"expected float32 {image.shape} like the image"
        )
    filtered = image.astype(np.float64) - reconstruction
    radius = len(taps) // 2
    for axis in (2, 3):
        border = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        filtered = np.lib.stride_tricks.sliding_window_view(np.pad(filtered, border), len(taps), axis) @ taps
    errors = (filtered**2).mean(1)
    return ProximalError(
        errors.astype(np.float32),
        errors.max((1, 2)).astype(np.float32),
        errors.mean((1, 2)).astype(np.float32),
    )
