"""Packed storage of lower-triangular whitening factors.

The rows of a factor W (d x d) are taken in blocks of eight, the last one filled up with zero rows. Block b holds the
columns 0 .. min(8 b + 8, d) - 1, column by column, the eight rows of a column side by side; what lies above the
diagonal inside the diagonal block is stored as zeros. Blocks follow each other without gaps, and zeros fill a factor up
to a multiple of 32 elements, so that every fp16 factor starts on a multiple of 64 bytes. One column of a block is then
one vector load on a CPU (16 bytes of fp16 become eight fp32 lanes), and one 16-byte load of a lane on a GPU.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

BLOCK_ROWS = 8
_ALIGNMENT = 32


def packed_size(d: int) -> int:
    """Number of elements that one packed factor takes.

    Args:
        d: Dimension of the factor, at least 1.

    Returns:
        Elements per factor, a multiple of 32; 1.147 times d (d + 1) / 2 at d = 100.

    Raises:
        InputError: d is not positive.
    """
    if d < 1:
        raise InputError(f"dimension {d}: expected at least 1")
    whole = d // BLOCK_ROWS
    columns = BLOCK_ROWS * whole * (whole + 1) // 2 + (d if d % BLOCK_ROWS else 0)
    return -(-columns * BLOCK_ROWS // _ALIGNMENT) * _ALIGNMENT


def pack(lower: npt.NDArray[np.floating[Any]], dtype: npt.DTypeLike = np.float16) -> npt.NDArray[np.floating[Any]]:
    """Packs lower-triangular factors.

    Args:
        lower: (..., d, d), any floating dtype, finite, zero above the diagonal.
        dtype: float16 or float32, what the factors are rounded to.

    Returns:
        (..., packed_size(d)) of that dtype, C-contiguous.

    Raises:
        InputError: Not square, not floating, not finite, not lower-triangular, or too large for the dtype.
    """
    if np.dtype(dtype) not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise InputError(f"factors as {np.dtype(dtype)}: expected float16 or float32")
    if lower.ndim < 2 or lower.shape[-1] != lower.shape[-2] or not np.issubdtype(lower.dtype, np.floating):
        raise InputError(f"factors {lower.dtype} {lower.shape}: expected floating point (..., d, d)")
    d = lower.shape[-1]
    packed = np.zeros((*lower.shape[:-2], packed_size(d)), dtype)
    largest = float(np.finfo(packed.dtype).max)
    for rows, columns, elements in _blocks(d):
        # The negated comparison also catches NaN.
        if not np.all(np.abs(lower[..., rows, :]) <= largest):
            raise InputError(
                f"factors that are not finite or beyond {largest:.5g}: scale them by a power of two to fit"
            )
        if np.any(np.triu(lower[..., rows, :], rows.start + 1)):
            raise InputError("factors with values above the diagonal: expected lower-triangular ones")
        block = packed[..., elements].reshape(*lower.shape[:-2], columns, BLOCK_ROWS)
        block[..., : rows.stop - rows.start] = np.swapaxes(lower[..., rows, :columns], -1, -2)
        packed[..., elements] = block.reshape(*lower.shape[:-2], columns * BLOCK_ROWS)
    return packed


def unpack(packed: npt.NDArray[np.floating[Any]], d: int) -> npt.NDArray[np.float32]:
    """Restores what `pack` stored.

    Args:
        packed: (..., packed_size(d)), float16 or float32.
        d: Dimension of the factors.

    Returns:
        float32 (..., d, d), zero above the diagonal.

    Raises:
        InputError: The last axis has not packed_size(d) elements.
    """
    if packed.ndim < 1 or packed.shape[-1] != packed_size(d):
        raise InputError(f"packed factors {packed.shape}: expected (..., {packed_size(d)}) for dimension {d}")
    lower = np.zeros((*packed.shape[:-1], d, d), np.float32)
    for rows, columns, elements in _blocks(d):
        block = packed[..., elements].reshape(*packed.shape[:-1], columns, BLOCK_ROWS)
        lower[..., rows, :columns] = np.swapaxes(block[..., : rows.stop - rows.start], -1, -2)
    return lower


def _blocks(d: int) -> Iterator[tuple[slice, int, slice]]:
    """Yields for each block its rows, its number of columns and its elements within the packed factor."""
    start = 0
    for first in range(0, d, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, d)
        stop = start + last * BLOCK_ROWS
        yield slice(first, last), last, slice(start, stop)
        start = stop
