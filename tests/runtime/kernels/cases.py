"""The cases of all implementations of the distances, native ones and CUDA's, and the random data that they run on."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from flawline.runtime.kernels import Gaussians, pack, pack_int8

DIMENSIONS = (1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 101, 150)
DTYPES = ("float16", "float32", "int8")
# Dimension and rank.
RANKS = (
    (1, 1),
    (2, 1),
    (7, 6),
    (8, 7),
    (9, 1),
    (9, 8),
    (16, 8),
    (17, 9),
    (33, 17),
    (64, 63),
    (65, 8),
    (100, 33),
    (101, 50),
)
TIES = ("position", "column", "global", "classes")
# Those of maps.
MAP_TIES = ("position", "column", "global")
# Type of the elements and rank.
STORED = (("float16", None), ("float32", None), ("int8", None), ("float16", 20), ("int8", 21))
BATCHES = (1, 2, 3, 8, 9)
# The factors that were stored are the ones compared, so that only fp32 arithmetic is left to differ, for any dtype; and
# in the Woodbury form also what the difference of two numbers enlarges.
TOLERANCE = 1e-5
WOODBURY_TOLERANCE = 3e-5
SIZE = (7, 5)
SHAPES = {1: [(7, 5)], 2: [(7, 5), (3, 2)], 3: [(9, 11), (7, 5), (1, 3)]}


def size_for(d: int) -> tuple[int, int]:
    """Size of a map for Gaussians of that dimension: smaller where they are large."""
    return (3, 5) if d > 100 else SIZE


def thinned(keep: int, *axes: Iterable[object]) -> list[object]:
    """The table of all combinations, one in `keep` of which runs each time; the others are slow.

    Those that run lie on diagonals, so that all values of each axis, and all pairs of long ones, are among them.
    """
    numbered = itertools.product(*(enumerate(axis) for axis in axes))
    return [
        pytest.param(*values, marks=() if sum(numbers) % keep == 0 else pytest.mark.slow)
        for numbers, values in (zip(*case, strict=True) for case in numbered)
    ]


def poisoned(*shape: int) -> npt.NDArray[np.float32]:
    """Memory that shows what was not written."""
    return np.full(shape, np.nan, np.float32)


def random_maps(
    rng: np.random.Generator, batch: int, d: int, shapes: Sequence[tuple[int, int]]
) -> list[npt.NDArray[np.float32]]:
    """Feature maps of d channels each."""
    return [rng.standard_normal((batch, d, *shape)).astype(np.float32) for shape in shapes]


def random_gaussians(
    rng: np.random.Generator,
    size: tuple[int, int],
    d: int,
    *,
    tie: str = "position",
    components: int = 1,
    dtype: str = "float16",
    rank: int | None = None,
) -> Gaussians:
    """Random well-conditioned Gaussians for a map of `size`, tied as asked; "classes" are as many as positions.

    With a rank, those of covariances of that rank plus a multiple of the identity, in the Woodbury form.
    """
    height, width = size
    positions = np.arange(height * width, dtype=np.int32)
    assignment = {"column": positions % width, "global": positions * 0}.get(tie, positions)
    count = int(assignment.max()) + 1
    rows = rng.standard_normal((count, components, rank or d, d)) / np.sqrt(d)
    # The triangles remove what pivoting and rounding leave above the diagonal.
    lower = np.linalg.cholesky(rows @ rows.swapaxes(-1, -2) + 0.1 * np.eye(rank or d))
    factor = np.tril(np.linalg.inv(lower))
    if rank:
        rotated = np.linalg.qr((factor @ rows)[..., ::-1], mode="r")[..., ::-1, ::-1]
        factor = np.tril(rotated, d - rank)
    scales = np.exp2(rng.integers(-3, 4, (count, components))).astype(np.float32)
    means = rng.standard_normal((count, components, d)).astype(np.float32)
    scaled = factor if rank else factor / scales[..., None, None]
    packed, row_scales = pack_int8(scaled) if dtype == "int8" else (pack(scaled, dtype), None)
    return Gaussians(means, packed, scales, assignment, row_scales, rank)
