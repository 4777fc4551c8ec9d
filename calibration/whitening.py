"""From covariances to the packed whitening factors that a bundle ships."""

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import pack, packed_size

_CHUNK_BYTES = 2 << 20
# Factors are scaled so that their largest number lies in [2^10, 2^11): fp16 then neither overflows (2^16) nor, for
# anything that matters beside it, falls below its smallest normal number (2^-14).
_LARGEST_EXPONENT = 10
_SMALL = 16


def regularisation(covariance: npt.NDArray[np.float64], epsilon: float, *, relative: bool) -> float:
    """What is added to the diagonal of every covariance.

    Args:
        covariance: float64 (G, d, d).
        epsilon: Share of the mean feature variance if relative, else the number itself.
        relative: Whether epsilon is relative to the mean feature variance (over all Gaussians and channels), which
            keeps its meaning when features or projection are scaled; the papers' absolute 0.01 does not.

    Raises:
        InputError: Epsilon is not a positive number, or the features do not vary at all.
    """
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"epsilon is {epsilon}; expected a positive number such as 0.01")
    variance = float(np.mean(np.diagonal(covariance, axis1=-2, axis2=-1)))
    if not variance > 0:
        raise InputError("the features of the good images do not vary: are they copies of one image, or of one colour?")
    return epsilon * variance if relative else epsilon


def whitening(covariance: npt.NDArray[np.float64], added: float) -> npt.NDArray[np.float64]:
    """Inverse Cholesky factors W = L^-1 with L L^T = Sigma + added I, so that distance = ||W (x - mean)||.

    Args:
        covariance: float64 (G, d, d).
        added: Number added to the diagonal.

    Returns:
        float64 (G, d, d), lower triangular.

    Raises:
        InputError: A covariance is singular, even with the addition.
    """
    dimension = covariance.shape[-1]
    identity = np.eye(dimension)
    try:
        lower = np.asarray(np.linalg.cholesky(covariance + added * identity), np.float64)
    except np.linalg.LinAlgError as error:
        raise InputError(f"a covariance is singular with {added:.3g} on its diagonal; raise --epsilon") from error
    return invert_lower(lower)


def invert_lower(lower: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverts lower triangular matrices by halves, so that nearly all the work is matrix products.

    Args:
        lower: float64 (..., d, d), lower triangular with a positive diagonal.

    Returns:
        float64 (..., d, d), lower triangular.
    """
    dimension = lower.shape[-1]
    if dimension <= _SMALL:
        return np.tril(np.linalg.inv(lower))
    half = dimension // 2
    inverse = np.zeros_like(lower)
    inverse[..., :half, :half] = invert_lower(lower[..., :half, :half])
    inverse[..., half:, half:] = invert_lower(lower[..., half:, half:])
    inverse[..., half:, :half] = -inverse[..., half:, half:] @ lower[..., half:, :half] @ inverse[..., :half, :half]
    return inverse


def packed_factors(
    covariance: npt.NDArray[np.float64], added: float, dtype: npt.DTypeLike
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.float32]]:
    """Whitens and packs, a bounded chunk at a time.

    Args:
        covariance: float64 (G, d, d).
        added: Number added to the diagonal.
        dtype: float16 or float32.

    Returns:
        Packed factors, dtype (G, packed_size(d)), and their scales, float32 (G,), powers of two:
        W = scale * unpacked factor.

    Raises:
        InputError: A covariance is singular, even with the addition.
    """
    gaussians, dimension = covariance.shape[:2]
    factors: npt.NDArray[np.floating] = np.empty((gaussians, packed_size(dimension)), dtype)
    scales = np.empty(gaussians, np.float32)
    chunk = max(1, _CHUNK_BYTES // (dimension * dimension * 8))
    for start in range(0, gaussians, chunk):
        part = slice(start, min(start + chunk, gaussians))
        lower = whitening(covariance[part], added)
        exponent = np.frexp(np.abs(lower).max(axis=(1, 2)))[1] - 1 - _LARGEST_EXPONENT
        factors[part] = pack(np.ldexp(lower, -exponent[:, None, None]), dtype)
        scales[part] = np.ldexp(1.0, exponent)
    return factors, scales
