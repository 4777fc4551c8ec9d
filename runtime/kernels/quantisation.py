"""Factors as int8, with a scale for each row."""

from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.packing import pack, padded_rows

LARGEST = 127


def quantise(rows: npt.NDArray[np.floating[Any]]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Rounds rows to int8 with a scale each.

    The scale is chosen first, in fp16 as it is stored, so that the largest element of its row becomes 127; then every
    element is rounded to the nearest multiple of it. The error of an element is thus at most half of the scale, 1/254 of the largest
    element of its row, where that element is at least 2^-7 (the scale is then a normal number of fp16).

    Args:
        rows: (..., r, d), finite.

    Returns:
        int8 (..., r, d), -127 .. 127, and float16 (..., r): row = scale * int8 row. A row of zeros has scale 0.

    Raises:
        InputError: Not floating, not finite, or too large for an fp16 scale.
    """
    if rows.ndim < 2 or rows.dtype.kind != "f":
        raise InputError(f"rows {rows.dtype} {rows.shape}: expected floating point (..., r, d)")
    largest = np.abs(rows).max(axis=-1, initial=0)
    # The negated comparison also catches NaN.
    if not np.all(largest <= LARGEST * float(np.finfo(np.float16).max)):
        raise InputError(
            "rows that are not finite or too large for a scale in fp16: scale them by a power of two to fit"
        )
    scales = (largest / LARGEST).astype(np.float16)
    divisors = np.where(scales > 0, scales, np.float16(1)).astype(rows.dtype)
    steps = np.rint(rows / divisors[..., None])
    # An element beyond 127 comes of a scale that was rounded down; a row whose scale vanished is too small to matter.
    return np.where(scales[..., None] > 0, np.clip(steps, -LARGEST, LARGEST), 0).astype(np.int8), scales


def pack_int8(lower: npt.NDArray[np.floating[Any]]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Quantises and packs lower-triangular factors, or their last rows.

    Args:
        lower: (..., r, d), as `flawline.runtime.kernels.pack` takes them.

    Returns:
        int8 (..., packed_size(d, r)) and the scales of the rows, float16 (..., padded_rows(d, r)), 0 for zero rows.

    Raises:
        InputError: Another shape or dtype, not finite, not lower-triangular, or too large.
    """
    quantised, scales = quantise(lower)
    return pack(quantised, np.int8), pad_row_scales(scales, lower.shape[-1])


def pad_row_scales(scales: npt.NDArray[np.float16], d: int) -> npt.NDArray[np.float16]:
    """The scales of r rows, (..., r), with those of the zero rows in front: float16 (..., padded_rows(d, r))."""
    rank = scales.shape[-1]
    stored = padded_rows(d, rank)
    padded = np.zeros((*scales.shape[:-1], stored), np.float16)
    padded[..., stored - rank :] = scales
    return padded
