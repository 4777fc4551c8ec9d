"""Which implementations of the kernels this machine can run, and what they take."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import _native
from flawline.runtime.kernels.checks import require_count
from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.interpolation import Upsampling, gaussian_taps, reflect, resampling_taps

if TYPE_CHECKING:
    from flawline.runtime.kernels._native import Filter, Resampling
    from flawline.runtime.kernels._native import Gaussians as NativeGaussians

REFERENCE = "reference"
MOST_THREADS = 256
_AVAILABLE = (*_native.implementations(), REFERENCE)


def implementations() -> tuple[str, ...]:
    """The implementations that run on this machine, the fastest first.

    Returns:
        Those of "avx512", "avx2" and "neon" that it can run, "generic" (portable C++), "reference" (NumPy, float64).
    """
    return _AVAILABLE


def choose(implementation: str | None, threads: int) -> str:
    """The implementation of that name, or the fastest one for None.

    Raises:
        InputError: This machine has no implementation of that name, or the number of threads is out of range.
    """
    require_count("threads", threads)
    if threads > MOST_THREADS:
        raise InputError(f"threads: received {threads}, expected at most {MOST_THREADS}")
    if implementation is None:
        return _AVAILABLE[0]
    if implementation not in _AVAILABLE:
        raise InputError(f"implementation: received {implementation!r}, expected one of {', '.join(_AVAILABLE)}")
    return implementation


def native_gaussians(gaussians: Gaussians) -> "NativeGaussians":
    """The arrays of Gaussians, fp16 as its bits."""
    half = gaussians.factors.dtype == np.float16
    row_scales = np.empty((0, 0, 0), np.float16) if gaussians.row_scales is None else gaussians.row_scales
    return (
        gaussians.means,
        gaussians.factors.view(np.uint16) if half else gaussians.factors,
        gaussians.scales,
        gaussians.assignment,
        row_scales.view(np.uint16),
        gaussians.dimension if gaussians.rank is None else gaussians.rank,
        gaussians.form == "woodbury",
    )


def native_resamplings(
    shapes: Sequence[tuple[int, int]], size: tuple[int, int], upsampling: Upsampling
) -> "list[Resampling]":
    """How maps of these shapes are resampled to that size."""
    return [
        (height, width, resampling_taps(height, size[0], upsampling), resampling_taps(width, size[1], upsampling))
        for height, width in shapes
    ]


def native_filter(sigma: float, size: tuple[int, int]) -> "Filter":
    """The separable Gaussian filter for maps of that size."""
    taps = gaussian_taps(sigma)
    radius = len(taps) // 2
    return taps, reflect(size[0], radius), reflect(size[1], radius)
