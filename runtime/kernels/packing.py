"""Packed storage of whitening factors: triangles, or the last rows of one.

The rows of a factor W (d x d, lower triangular) are taken in blocks of eight that end with the last row; zero rows
before the first row fill up the first block, where rows are short, so that they cost least. A block holds every column
from the first of W to that of the diagonal in its last row, column by column, the eight rows of a column side by side;
what lies above the diagonal is stored as zeros. If d is odd, a zero column precedes those of every block: each then has
an even number of columns, and two columns that are read at once belong to one block. Blocks follow each other without
gaps, and zeros fill a factor up to a multiple of 32 elements, so that every fp16 factor starts on a multiple of 64
bytes. One column of a block is then one vector load on a CPU (16 bytes of fp16 become eight fp32 lanes), and one 16-byte
load of a lane on a GPU.

A factor of rank r < d, the R of the Woodbury form, is stored as the last r rows of such a triangle, in as many blocks as
they need: an orthogonal rotation, which changes no norm, gives any r rows that shape (`flawline.calibration.woodbury`).

Elements are fp16, fp32 or int8. For int8, each row has an fp16 scale: row = scale * stored row; the scales lie apart,
one for each row of the blocks, those of the zero rows in front included.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

BLOCK_ROWS = 8
_ALIGNMENT = 32
_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.int8))


def packed_size(d: int, rank: int | None = None) -> int:
    """Number of elements that one packed factor takes.

    Args:
        d: Dimension of the factor, at least 1.
        rank: Its rows, the last ones of a triangle; None for all d.

    Returns:
        Elements per factor, a multiple of 32; 1.071 times d (d + 1) / 2 at d = 100.

    Raises:
        InputError: d is not positive, or the rank not 1 .. d.
    """
    blocks = padded_rows(d, rank) // BLOCK_ROWS
    columns = blocks * (d + d % 2) - BLOCK_ROWS * blocks * (blocks - 1) // 2
    return -(-columns * BLOCK_ROWS // _ALIGNMENT) * _ALIGNMENT


def padded_rows(d: int, rank: int | None = None) -> int:
    """Rows of a packed factor with the zero rows in front: as many as it has row scales if it is int8.

    Args:
        d: Dimension of the factor, at least 1.
        rank: Its rows, the last ones of a triangle; None for all d.

    Returns:
        A multiple of BLOCK_ROWS.

    Raises:
        InputError: d is not positive, or the rank not 1 .. d.
    """
    if d < 1:
        raise InputError(f"dimension {d}: expected at least 1")
    if rank is not None and not 1 <= rank <= d:
        raise InputError(f"rank {rank}: expected 1 to the dimension {d}")
    return -(-(rank or d) // BLOCK_ROWS) * BLOCK_ROWS


def pack(lower: npt.NDArray[Any], dtype: npt.DTypeLike = np.float16) -> npt.NDArray[Any]:
    """Packs lower-triangular factors, or their last rows.

    Args:
        lower: (..., r, d), r <= d: the last r rows of (..., d, d), zero above the diagonal. Any floating dtype and
            finite; or int8, as `quantise` gives them.
        dtype: float16 or float32, what the factors are rounded to; int8 for int8 ones.

    Returns:
        (..., packed_size(d, r)) of that dtype, C-contiguous.

    Raises:
        InputError: Another shape or dtype, not finite, not lower-triangular, or too large for the dtype.
    """
    if np.dtype(dtype) not in _DTYPES:
        raise InputError(f"factors as {np.dtype(dtype)}: expected float16, float32 or int8")
    expected = "floating point" if np.dtype(dtype).kind == "f" else "int8"
    if lower.ndim < 2 or not 1 <= lower.shape[-2] <= lower.shape[-1] or lower.dtype.kind != np.dtype(dtype).kind:
        raise InputError(f"factors {lower.dtype} {lower.shape}: expected {expected} (..., d, d), or fewer rows")
    rank, d = lower.shape[-2:]
    packed = np.zeros((*lower.shape[:-2], packed_size(d, rank)), dtype)
    largest = float(np.finfo(packed.dtype).max) if packed.dtype.kind == "f" else 127
    for rows, columns, elements in _blocks(d, rank):
        # The negated comparison also catches NaN.
        if not np.all((lower[..., rows, :] >= -largest) & (lower[..., rows, :] <= largest)):
            raise InputError(
                f"factors that are not finite or beyond {largest:.5g}: scale them by a power of two to fit"
            )
        if np.any(np.triu(lower[..., rows, :], rows.start + d - rank + 1)):
            raise InputError("factors with values above the diagonal: expected lower-triangular ones")
        block = np.zeros((*lower.shape[:-2], columns + d % 2, BLOCK_ROWS), dtype)
        block[..., d % 2 :, rows.start - rows.stop :] = np.swapaxes(lower[..., rows, :columns], -1, -2)
        packed[..., elements] = block.reshape(packed[..., elements].shape)
    return packed


def unpack(
    packed: npt.NDArray[Any],
    d: int,
    rank: int | None = None,
    row_scales: npt.NDArray[np.float16] | None = None,
) -> npt.NDArray[np.float32]:
    """Restores what `pack` stored.

    Args:
        packed: (..., packed_size(d, rank)), float16, float32 or int8.
        d: Dimension of the factors.
        rank: Their rows; None for all d.
        row_scales: (..., padded_rows(d, rank)), what int8 rows are multiplied by; None for 1.

    Returns:
        float32 (..., rank, d), zero above the diagonal.

    Raises:
        InputError: The last axis of an array has another size.
    """
    size, rows_stored = packed_size(d, rank), padded_rows(d, rank)
    if packed.ndim < 1 or packed.shape[-1] != size:
        raise InputError(f"packed factors {packed.shape}: expected (..., {size}) for dimension {d}")
    if row_scales is not None and row_scales.shape != (*packed.shape[:-1], rows_stored):
        raise InputError(f"row scales {row_scales.shape}: expected {(*packed.shape[:-1], rows_stored)}")
    rank = rank or d
    lower = np.zeros((*packed.shape[:-1], rank, d), np.float32)
    for rows, columns, elements in _blocks(d, rank):
        block = packed[..., elements].reshape(*packed.shape[:-1], columns + d % 2, BLOCK_ROWS)
        lower[..., rows, :columns] = np.swapaxes(block[..., d % 2 :, rows.start - rows.stop :], -1, -2)
    if row_scales is not None:
        lower *= row_scales[..., rows_stored - rank :, None].astype(np.float32)
    return lower


def _blocks(d: int, rank: int) -> Iterator[tuple[slice, int, slice]]:
    """Yields for each block its rows of the factor, its columns, and its elements within the packed factor."""
    start = 0
    for last in range(d - padded_rows(d, rank) + BLOCK_ROWS, d + 1, BLOCK_ROWS):
        stop = start + (last + d % 2) * BLOCK_ROWS
        end = last - (d - rank)
        yield slice(max(end - BLOCK_ROWS, 0), end), last, slice(start, stop)
        start = stop
