"""Proximally Sensitive Error: the squared error that counts more where errors lie together."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import _native, reference
from flawline.runtime.kernels.checks import require, require_count
from flawline.runtime.kernels.implementations import REFERENCE, choose

Floats = npt.NDArray[np.float32]

MOST_SIGMA_PX = 1000
_PIXELS = (np.uint8, np.float32)


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
        InputError: sigma is negative, not finite or above `MOST_SIGMA_PX`.
    """
    if not math.isfinite(sigma) or sigma < 0:
        raise InputError(f"sigma: received {sigma}, expected a finite number of pixels of at least 0")
    if sigma > MOST_SIGMA_PX:
        raise InputError(f"sigma: received {sigma}, expected at most {MOST_SIGMA_PX} pixels")
    if sigma == 0:
        return np.ones(1, np.float32)
    radius = math.floor(2 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps: npt.NDArray[np.float32] = (
        weights / (weights.sum() if normalised else math.sqrt(2 * math.pi) * sigma)
    ).astype(np.float32)
    return taps


class ProximalErrorMap:
    """Images and their reconstructions to Proximally Sensitive Error: allocated once, run many times.

    See `proximally_sensitive_error`. Results do not depend on the number of threads, nor on the frames beside a frame in
    the batch, bit for bit. One object may be called from several Python threads; they wait for each other.

    Args:
        size: (height, width) of the images.
        sigma: Standard deviation in pixels, 0 to `MOST_SIGMA_PX`.
        channels: Of the images.
        dtype: Of the images, uint8 or float32.
        batch: Largest number of frames per call.
        normalised: Whether the taps are scaled to sum 1; else equation 4.
        threads: Threads of this object, the calling one included.
        implementation: One of `implementations()`, None for the fastest.

    Raises:
        InputError: A value is out of its range.
    """

    def __init__(
        self,
        size: tuple[int, int],
        sigma: float,
        *,
        channels: int = 1,
        dtype: npt.DTypeLike = np.float32,
        batch: int = 1,
        normalised: bool = True,
        threads: int = 1,
        implementation: str | None = None,
    ) -> None:
        chosen = choose(implementation, threads)
        for name, count in (("height", size[0]), ("width", size[1]), ("channels", channels), ("batch", batch)):
            require_count(name, count)
        if np.dtype(dtype) not in _PIXELS:
            raise InputError(f"dtype: received {np.dtype(dtype)}, expected uint8 or float32")
        self.size = size
        self.batch = batch
        self.implementation = chosen
        self._dtype = np.dtype(dtype)
        self._shape = (channels, *size)
        taps = _taps_within(proximity_taps(sigma, normalised=normalised), size)
        self._engine: reference.ProximalErrorMap | _native.ProximalErrorMap
        if chosen == REFERENCE:
            self._engine = reference.ProximalErrorMap(taps)
        else:
            self._engine = _native.ProximalErrorMap(
                chosen, taps, self._dtype == np.uint8, channels, *size, batch, threads
            )

    def __call__(self, image: npt.NDArray[Any], reconstruction: Floats, out: Floats | None = None) -> ProximalError:
        """The error of up to `batch` frames.

        Args:
            image: (B, channels, height, width) of the dtype, 1 <= B <= batch.
            reconstruction: float32 of the same shape.
            out: float32 (B, height, width) to write the map to; a new array if None.

        Returns:
            The map, which is `out`, its maximum and its mean for each frame.

        Raises:
            InputError: Another shape, dtype or layout, or the map would overwrite what it is made of.
        """
        frames = self._check(image, reconstruction)
        if out is None:
            out = np.empty((frames, *self.size), np.float32)
        require("out", out, np.float32, (frames, *self.size), writeable=True)
        if np.may_share_memory(out, image) or np.may_share_memory(out, reconstruction):
            raise InputError(
                "out: received memory of an image, expected an array of its own; rows are read after others"
            )
        return ProximalError(out, *self._run(image, reconstruction, out))

    def score(self, image: npt.NDArray[Any], reconstruction: Floats) -> tuple[Floats, Floats]:
        """The maximum and the mean without the map, float32 (B,) each; see `__call__`."""
        self._check(image, reconstruction)
        return self._run(image, reconstruction, None)

    def _check(self, image: npt.NDArray[Any], reconstruction: Floats) -> int:
        require("image", image, self._dtype, ("B", *self._shape))
        require("reconstruction", reconstruction, np.float32, image.shape)
        if len(image) > self.batch:
            raise InputError(f"image: received {len(image)} frames, expected at most {self.batch}")
        return len(image)

    def _run(self, image: npt.NDArray[Any], reconstruction: Floats, out: Floats | None) -> tuple[Floats, Floats]:
        maxima, means = np.empty(len(image), np.float32), np.empty(len(image), np.float32)
        self._engine.run(image, reconstruction, out, maxima, means)
        return maxima, means


def proximally_sensitive_error(
    image: npt.NDArray[Any],
    reconstruction: Floats,
    sigma: float,
    *,
    normalised: bool = True,
    threads: int = 1,
    implementation: str | None = None,
) -> ProximalError:
    """Proximally Sensitive Error (Gudi and others, 2022), equations 3 and 4.

    With the residual R = image - reconstruction and a Gaussian k of sigma pixels, cut at 2 sigma::

        PSE = 1/(M N) sum_ij ((R * k)_ij)^2

    Outside the image the residual is 0: this is the convolution of equation 3 as it stands, it adds no error that was not
    there, and it is what a convolution layer computes when the same error trains a network. An error at the border
    thus counts less than one inside. At sigma 0 it is the squared error. The paper defines it on grey images; with
    several channels, each is filtered by itself and the error of a pixel is the mean over them, as that of MSE is. NaN
    in a frame gives NaN where it is under the filter, and as maximum and mean.

    Args:
        image: uint8 or float32 (B, channels, height, width).
        reconstruction: float32 (B, channels, height, width), in the units of the image.
        sigma: Standard deviation in pixels, 0 to `MOST_SIGMA_PX`.
        normalised: Whether the taps are scaled to sum 1, so that errors of different sigma compare; else equation 4.
        threads: Threads to use, the calling one included; the result does not depend on it, bit for bit.
        implementation: One of `implementations()`, None for the fastest.

    Returns:
        The map, its maximum and its mean for each frame, in squared units of the image.

    Raises:
        InputError: Another shape, dtype or layout, nothing to compare, or sigma is out of its range.
    """
    chosen = choose(implementation, threads)
    taps = proximity_taps(sigma, normalised=normalised)
    require("image", image, _PIXELS, ("B", "channels", "height", "width"))
    require("reconstruction", reconstruction, np.float32, image.shape)
    frames, _, *size = image.shape
    error = ProximalError(
        np.empty((frames, *size), np.float32), np.empty(frames, np.float32), np.empty(frames, np.float32)
    )
    taps = _taps_within(taps, size)
    if chosen == REFERENCE:
        reference.ProximalErrorMap(taps).run(image, reconstruction, *error)
    else:
        _native.proximal_error(chosen, taps, image, reconstruction, threads, *error)
    return error


def _taps_within(taps: Floats, size: Sequence[int]) -> Floats:
    """Without the taps that reach beyond an image of that size wherever they stand."""
    beyond = max(len(taps) // 2 - max(size) + 1, 0)
    return np.ascontiguousarray(taps[beyond : len(taps) - beyond])
