"""Which vectors share a Gaussian, and how the work on them is laid out over a GPU."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.checks import require_count
from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.packing import BLOCK_ROWS, padded_rows

MOST_VECTORS = 8
"""Vectors that are scored while a factor is read once."""

MOST_SHARED_BYTES = 48 << 10
"""Shared memory that every GPU gives to a block without being asked for more."""

_WARP = 32
_WARPS_PER_BLOCK = 8
_BLOCKS_OF_ROWS_PER_WARP = 4
_BANK_FLOATS = 4
# Neighbouring positions that share a read of a map: the floats of the 32 bytes that memory gives at least.
_POSITIONS = 8
# Of `projected.cu`: floats of its tiles, and threads side by side over the vectors of a block, two to each.
_TILE_FLOATS = 3072
_THREAD_COLUMNS = (16, 8, 4)
_VECTORS_PER_THREAD = 2


class Items(NamedTuple):
    """The work on some frames, one item per reading of a Gaussian's factors.

    Attributes:
        vectors_per_item: N, vectors that an item has room for: 1, 2, 4 or 8.
        gaussians: int32 (items,): the Gaussian of each item.
        vectors: int32 (items, N, 2): frame and output of each vector; frame -1 where there is none.
    """

    vectors_per_item: int
    gaussians: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.int32]


class Launch(NamedTuple):
    """How work is laid out over a GPU.

    Attributes:
        grid: Blocks.
        block: Threads: lanes, warps of an item, items that are scored at a time.
        shared_bytes: Shared memory of a block.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int


Embedded = Literal["vector", "map", "projection"]
"""What a block makes of its vectors before it scores them: nothing, sums of upsampled maps, or projections of maps."""


class Plan(NamedTuple):
    """Items and their layout.

    Attributes:
        items: The work.
        launch: Its layout.
        held: Items of a block.
        thread_columns: Threads side by side over the vectors of a block while they are projected; 0 if they are not.
    """

    items: Items
    launch: Launch
    held: int
    thread_columns: int


def plan(gaussians: Gaussians, frames: int, *, embedded: Embedded = "vector") -> Plan:
    """Lays out the work: more warps on an item where factors are large, more items to a block where they are small.

    Args:
        gaussians: P outputs.
        frames: Frames of a batch, at most.
        embedded: What a block makes of its vectors first. If it upsamples maps, it holds items of eight neighbouring
            positions, or as many as fit, so that it reads them together; if it projects maps, as many as fit, since it
            reads the whole projection.

    Returns:
        The plan with the most vectors to an item that fits a block's shared memory.

    Raises:
        InputError: The number of frames is not positive, or not even one vector fits: from about 12,000 dimensions on, and a
            thousand if they are projected.
    """
    require_count("frames", frames)
    projected = embedded == "projection"
    warps = _warps(gaussians, least=2 if projected else 1)
    slots = _WARPS_PER_BLOCK // warps
    for most_vectors in (MOST_VECTORS, 4, 2, 1):
        work = items(gaussians, frames, most_vectors)
        for held, columns in _holdings(embedded, slots, work, gaussians.outputs):
            layout = _launch(gaussians, work, warps, held, _TILE_FLOATS if projected else 0)
            if held >= slots and layout.shared_bytes <= MOST_SHARED_BYTES:
                return Plan(work, layout, held, columns)
    raise InputError(
        f"gaussians: received {gaussians.components} components of {gaussians.dimension} dimensions, expected what "
        f"fits {MOST_SHARED_BYTES} bytes of shared memory; project to fewer dimensions"
    )


def items(gaussians: Gaussians, frames: int, most_vectors: int = MOST_VECTORS) -> Items:
    """Lists the work, so that each factor is read for as many vectors at once as there are.

    Args:
        gaussians: P outputs.
        frames: Frames of a batch.
        most_vectors: Vectors of an item at most: 1, 2, 4 or 8.
    """
    order = gaussians.order
    # Output by output, and for each the frames: what shares a Gaussian then lies side by side.
    vectors = np.stack(np.broadcast_arrays(np.arange(frames)[None], order[:, None]), axis=-1).reshape(-1, 2)
    owners = np.repeat(gaussians.assignment[order], frames)
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    lengths = np.diff(np.r_[starts, len(owners)])
    room = min(most_vectors, 1 << int(lengths.max() - 1).bit_length())
    places = np.arange(len(owners)) - np.repeat(starts, lengths)
    needed = -(-lengths // room)
    numbers = np.repeat(np.cumsum(needed) - needed, lengths) + places // room
    listed = np.full((int(needed.sum()), room, 2), -1, np.int32)
    listed[numbers, places % room] = vectors
    return Items(room, np.repeat(owners[starts], needed), listed)


def _holdings(embedded: Embedded, slots: int, work: Items, outputs: int) -> Iterator[tuple[int, int]]:
    """Items that a block may hold, the most first, and threads side by side over their vectors if they are projected."""
    if embedded == "projection":
        yield from ((columns * _VECTORS_PER_THREAD // work.vectors_per_item, columns) for columns in _THREAD_COLUMNS)
        return
    # Where positions share a Gaussian, an item has several.
    positions = max(outputs // len(work.gaussians), 1)
    held = max(_POSITIONS // positions, slots) if embedded == "map" else slots
    while held >= slots:
        yield held, 0
        held //= 2


def _warps(gaussians: Gaussians, least: int) -> int:
    # Of the size of a factor alone, since the order of sums depends on it.
    rows = padded_rows(gaussians.dimension, gaussians.rank)
    groups = -(-rows // (BLOCK_ROWS * _BLOCKS_OF_ROWS_PER_WARP))
    return next(
        warps for warps in (1, 2, 4, 8) if warps >= least and (2 * warps >= groups or warps == _WARPS_PER_BLOCK)
    )


def _launch(gaussians: Gaussians, work: Items, warps: int, held: int, tile_floats: int) -> Launch:
    """A launch of blocks that hold some items each, and score as many at a time as there are warps for."""
    slots = _WARPS_PER_BLOCK // warps
    item = (gaussians.dimension + gaussians.dimension % 2) * work.vectors_per_item + _BANK_FLOATS
    copies = 0 if gaussians.components == 1 else slots
    sums = slots * 2 * warps * work.vectors_per_item
    shared_bytes = 4 * (tile_floats + (held + copies) * item + sums)
    return Launch((-(-len(work.gaussians) // max(held, 1)), 1, 1), (_WARP, warps, slots), shared_bytes)
