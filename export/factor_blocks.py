"""Whitening factors as constants of an ONNX graph: blocks of rows, without most of the zeros of a triangle."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels import Gaussians, unpack

# More of them store and multiply fewer zeros, but in smaller products: four are fastest, and 5/8 of a square.
_BLOCKS = 4
_UNPACKED_AT_ONCE = 256


class Block(NamedTuple):
    """Successive rows of all factors, transposed, with their columns up to the last that is not zero.

    Attributes:
        values: float32 or float16 (G, K, columns, rows). 8-bit integers are fp16 numbers here, exactly: TensorRT takes
            8-bit constants only through an operator that ONNX Runtime would compute anew for every frame.
        row_scales: float16 (G, K, rows), what int8 rows are multiplied by; None for the other types.
    """

    values: npt.NDArray[np.floating[Any]]
    row_scales: npt.NDArray[np.float16] | None


def blocks(gaussians: Gaussians) -> Iterator[Block]:
    """Yields the factors of Gaussians, block by block."""
    d, rank = gaussians.dimension, gaussians.rank or gaussians.dimension
    dtype = np.float32 if gaussians.factors.dtype == np.float32 else np.float16
    count, components = gaussians.scales.shape
    packed = gaussians.factors.reshape(count * components, -1)
    for rows, columns in _blocks(d, rank):
        values = np.empty((count * components, columns, rows.stop - rows.start), dtype)
        # A few at a time, because they are unpacked to fp32 and whole rows.
        for start in range(0, len(packed), _UNPACKED_AT_ONCE):
            some = slice(start, start + _UNPACKED_AT_ONCE)
            values[some] = np.swapaxes(unpack(packed[some], d, gaussians.rank)[:, rows, :columns], -1, -2)
        # Scales of rows that only fill up the first packed block come before those of the factor's own.
        scales = None if gaussians.row_scales is None else gaussians.row_scales[..., -rank:][..., rows]
        yield Block(values.reshape(count, components, *values.shape[1:]), scales)


def block_elements(d: int, rank: int | None = None) -> int:
    """Elements that the blocks of one factor hold, of `rank` rows, or of all d."""
    return sum((rows.stop - rows.start) * columns for rows, columns in _blocks(d, rank or d))


def _blocks(d: int, rank: int) -> Iterator[tuple[slice, int]]:
    """Yields the rows of each block and how many columns it has: a factor is the last rows of a triangle."""
    edges = sorted({rank * i // _BLOCKS for i in range(_BLOCKS + 1)})
    return ((slice(start, stop), d - rank + stop) for start, stop in itertools.pairwise(edges))
