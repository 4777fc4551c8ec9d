"""From covariances to the packed whitening factors that a bundle ships."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import pack, pack_int8, packed_size, padded_rows

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
    return regularisation_of(float(np.mean(np.diagonal(covariance, axis1=-2, axis2=-1))), epsilon, relative=relative)


def regularisation_of(variance: float, epsilon: float, *, relative: bool) -> float:
    """The same of the mean feature variance."""
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"epsilon is {epsilon}; expected a positive number such as 0.01")
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


class PackedFactors(NamedTuple):
    """Factors of G Gaussians as `flawline.runtime.kernels.Gaussians` takes them, with an axis of components between.

    Attributes:
        factors: float16, float32 or int8 (G, packed_size(d, rank)).
        scales: float32 (G,).
        row_scales: float16 (G, padded_rows(d, rank)) for int8, else None.
        rank: Rows of a factor in the Woodbury form, None for a triangle.
    """

    factors: npt.NDArray[Any]
    scales: npt.NDArray[np.float32]
    row_scales: npt.NDArray[np.float16] | None
    rank: int | None


def packed_factors(covariance: npt.NDArray[np.float64], added: float, dtype: npt.DTypeLike) -> PackedFactors:
    """Whitens and packs, a bounded chunk at a time.

    Args:
        covariance: float64 (G, d, d).
        added: Number added to the diagonal.
        dtype: float16, float32, or int8 with a scale for each row.

    Returns:
        Triangles; scales are powers of two: W = scale * (row scale *) unpacked factor.

    Raises:
        InputError: A covariance is singular, even with the addition.
    """
    gaussians, dimension = covariance.shape[:2]
    packed = empty_factors(gaussians, dimension, None, dtype)
    for part in chunks(gaussians, dimension):
        lower = whitening(covariance[part], added)
        exponent = np.frexp(np.abs(lower).max(axis=(1, 2)))[1] - 1 - _LARGEST_EXPONENT
        store(packed, part, np.ldexp(lower, -exponent[:, None, None]))
        packed.scales[part] = np.ldexp(1.0, exponent)
    return packed


def empty_factors(gaussians: int, dimension: int, rank: int | None, dtype: npt.DTypeLike) -> PackedFactors:
    """Room for the packed factors of that many Gaussians."""
    rows = padded_rows(dimension, rank)
    return PackedFactors(
        np.empty((gaussians, packed_size(dimension, rank)), dtype),
        np.empty(gaussians, np.float32),
        np.empty((gaussians, rows), np.float16) if np.dtype(dtype) == np.int8 else None,
        rank,
    )


def chunks(gaussians: int, dimension: int) -> Iterator[slice]:
    """Slices of Gaussians whose float64 matrices are together a bounded number of bytes."""
    size = max(1, _CHUNK_BYTES // (dimension * dimension * 8))
    for start in range(0, gaussians, size):
        yield slice(start, min(start + size, gaussians))


def store(packed: PackedFactors, part: slice, rows: npt.NDArray[np.float64]) -> None:
    """Packs factors of some Gaussians, float64 (part, r, d), into their place."""
    if packed.row_scales is None:
        packed.factors[part] = pack(rows, packed.factors.dtype)
    else:
        packed.factors[part], packed.row_scales[part] = pack_int8(rows)
