"""The Woodbury form of the whitening: fewer numbers where fewer images than dimensions were seen.

A covariance of rank r < d with c > 0 added to its diagonal has the inverse (Sigma + c I)^-1 = (I - R^T R) / c, where R has r
rows: with the eigenvalues l_i > 0 and eigenvectors u_i of Sigma, they are sqrt(l_i / (l_i + c)) u_i^T (the identity of
Sherman, Morrison and Woodbury). The distance is ``sqrt((||z||^2 - ||R z||^2) / c)``.

It is a difference, and loses what the two terms have in common. A vector along u_i has ||R z||^2 = l_i / (l_i + c) ||z||^2:
only the share c / (l_i + c) is left, and an error of relative size e in R becomes one of e (l_i + c) / c in the squared
distance. The form is thus good for what a flaw is, a vector outside the span of the good images, of which ||R z|| takes
little; and bad along the directions in which good images vary most, the worse the smaller c is: with c = 0.01 of the mean
variance and a first eigenvalue of 30 times the mean, fp16 (e = 2^-12) may be off by half. The triangle has no such
difference, and is what to take where it must be exact. int8 is too coarse for this form.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from flawline.calibration.whitening import PackedFactors, chunks, empty_factors, store
from flawline.runtime.errors import InputError
from flawline.runtime.kernels import packed_size

Form = Literal["triangle", "woodbury"]

# Share of the triangle's bytes that the Woodbury form must stay below to be worth what it loses.
_WORTH_IT = 0.75
# Eigenvalues of what a float64 sum of outer products leaves beyond its rank, relative to the largest.
_NEGLIGIBLE = 1e-9


def smaller_form(images: int, d: int, dtype: npt.DTypeLike = np.float16) -> Form:
    """Which form to take: Woodbury's where it saves a quarter of the bytes, but not for int8, which is too coarse for it.

    Args:
        images: Images (of one Gaussian) that covariances were estimated from about their mean: their rank is images - 1.
        d: Dimension.
        dtype: float16, float32 or int8.
    """
    rank = images - 1
    if np.dtype(dtype) == np.int8 or not 1 <= rank < d:
        return "triangle"
    return "woodbury" if packed_size(d, rank) < _WORTH_IT * packed_size(d) else "triangle"


def woodbury_factors(
    covariance: npt.NDArray[np.float64], added: float, rank: int, dtype: npt.DTypeLike
) -> PackedFactors:
    """Finds R and packs it, a bounded chunk at a time.

    The d - r smallest eigenvalues of a covariance may be zero or, as shrinkage towards a multiple of the identity makes
    them, alike: what they are is then part of c.

    Args:
        covariance: float64 (G, d, d), of rank r, or such a one plus a multiple of the identity.
        added: Number added to the diagonal, positive.
        rank: r, 1 to d - 1: the number of images less one.
        dtype: float16, float32, or int8 with a scale for each row.

    Returns:
        R of every Gaussian, and as scales 1 / sqrt(c).

    Raises:
        InputError: The form would take no fewer bytes than the triangle, or a covariance is not of that rank.
    """
    gaussians, dimension = covariance.shape[:2]
    if not (1 <= rank < dimension and packed_size(dimension, rank) < packed_size(dimension)):
        raise InputError(
            f"rank {rank}: the Woodbury form saves nothing for dimension {dimension}; expected fewer images, or the form triangle"
        )
    packed = empty_factors(gaussians, dimension, rank, dtype)
    for part in chunks(gaussians, dimension):
        values, vectors = np.linalg.eigh(covariance[part])
        rest, kept = values[:, : dimension - rank], values[:, dimension - rank :]
        floor = rest.mean(axis=1, keepdims=True)
        if np.any(np.abs(rest - floor) > _NEGLIGIBLE * values[:, -1:]):
            raise InputError(
                f"a covariance is not of rank {rank}, even less a multiple of the identity; take the triangle"
            )
        spread = np.maximum(kept - floor, 0)
        constant = added + floor
        rows = np.sqrt(spread / (spread + constant))[..., None] * np.swapaxes(vectors[..., dimension - rank :], -1, -2)
        store(packed, part, last_rows(rows))
        packed.scales[part] = 1 / np.sqrt(constant[:, 0])
    return packed


def last_rows(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rotates r rows until they are the last ones of a lower triangle; no norm ||R z|| changes.

    Args:
        rows: float64 (..., r, d), r <= d.

    Returns:
        float64 (..., r, d), row i zero beyond column d - r + i.
    """
    rank, dimension = rows.shape[-2:]
    # A QR decomposition makes them an upper triangle; from the last column to the first, a lower one.
    upper = np.asarray(np.linalg.qr(rows[..., ::-1], mode="r"), np.float64)
    return np.tril(upper[..., ::-1, ::-1], dimension - rank)
