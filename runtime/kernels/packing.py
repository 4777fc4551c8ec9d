"""Packed storage of lower-triangular whitening factors.

The rows of a factor W (d x d) are taken in blocks of eight that end with the last row; zero rows before the first row
fill up the first block, where rows are short, so that they cost least. A block holds every column from the first of W
to that of the diagonal in its last row, column by column, the eight rows of a column side by side; what lies above the
diagonal is stored as zeros. If d is odd, a zero column precedes those of every block: each then has an even number of
columns, and two columns that are read at once belong to one block. Blocks follow each other without gaps, and zeros
fill a factor up to a multiple of 32 elements, so that every fp16 factor starts on a multiple of 64 bytes. One column of
a block is then one vector load on a CPU (16 bytes of fp16 become eight fp32 lanes), and one 16-byte load of a lane on a
GPU.
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
        Elements per factor, a multiple of 32; 1.071 times d (d + 1) / 2 at d = 100.

    Raises:
        InputError: d is not positive.
    """
    if d < 1:
        raise InputError(f"dimension {d}: expected at least 1")
    blocks = -(-d // BLOCK_ROWS)
    columns = blocks * (d + d % 2) - BLOCK_ROWS * blocks * (blocks - 1) // 2
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
    for rows, elements in _blocks(d):
        # The negated comparison also catches NaN.
        if not np.all(np.abs(lower[..., rows, :]) <= largest):
            raise InputError(
                f"factors that are not finite or beyond {largest:.5g}: scale them by a power of two to fit"
            )
        if np.any(np.triu(lower[..., rows, :], rows.start + 1)):
            raise InputError("factors with values above the diagonal: expected lower-triangular ones")
        block = np.zeros((*lower.shape[:-2], rows.stop + d % 2, BLOCK_ROWS), dtype)
        block[..., d % 2 :, rows.start - rows.stop :] = np.swapaxes(lower[..., rows, : rows.stop], -1, -2)
        packed[..., elements] = block.reshape(packed[..., elements].shape)
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
    for rows, elements in _blocks(d):
        block = packed[..., elements].reshape(*packed.shape[:-1], rows.stop + d % 2, BLOCK_ROWS)
        lower[..., rows, : rows.stop] = np.swapaxes(block[..., d % 2 :, rows.start - rows.stop :], -1, -2)
    return lower


def _blocks(d: int) -> Iterator[tuple[slice, slice]]:
    """Yields for each block its rows of the factor and its elements within the packed factor."""
    start = 0
    for last in range((d - 1) % BLOCK_ROWS + 1, d + 1, BLOCK_ROWS):
        stop = start + (last + d % 2) * BLOCK_ROWS
        yield slice(max(last - BLOCK_ROWS, 0), last), slice(start, stop)
        start = stop
