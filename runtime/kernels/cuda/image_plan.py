"""Which kernel works on images and maps of some size, and how it is laid out over a GPU."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.cuda.plan import Launch
from flawline.runtime.kernels.cuda.resize_tables import Averaging, Interpolation, Runs

SHARED_BYTES = 48 << 10
"""Shared memory that a block may ask for on every GPU without special leave."""

_WARP = 32
_WARPS_PER_BLOCK = 8
_QUAD = 4
_PIECE_BYTES = 16
_COPY_PIXELS = 4 * _WARP
_PART_BYTES = 8
_FRAME_MAP_PIXELS = (8, 4)


class Plan(NamedTuple):
    """A kernel and its layout.

    Attributes:
        kernel: Name of the kernel.
        launch: Its grid, blocks and shared memory.
    """

    kernel: str
    launch: Launch


class AveragingPlan(NamedTuple):
    """A kernel that averages, and how frames come into shared memory.

    Attributes:
        plan: The kernel and its layout.
        band: Rows of a frame that are in shared memory at once.
        pitch: Bytes from one of them to the next.
    """

    plan: Plan
    band: int
    pitch: int


class _Tile(NamedTuple):
    """Pixels that a block filters; each thread is left with some below one another."""

    width: int
    height: int
    outputs: int

    def grid(self, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
        return -(-size[1] // self.width), -(-size[0] // self.height), frames

    def block(self) -> tuple[int, int, int]:
        return self.width, self.height // self.outputs, 1

    def shared_bytes(self, radius: int) -> int:
        """The taps, the pixels with their border in whole quads, and the filtered rows."""
        rows = self.height + 2 * radius
        pitch = self.width + 2 * (-(-radius // _QUAD) * _QUAD) + 1
        return 4 * (2 * radius + 1 + rows * pitch + rows * (self.width + 1))


_SMOOTH_TILE = _Tile(width=32, height=16, outputs=4)
_ERROR_TILE = _Tile(width=64, height=32, outputs=8)


def plan_smooth(size: tuple[int, int], frames: int, radius: int) -> Plan:
    """Lays out the smoothing of maps.

    Args:
        size: Height and width of a map.
        frames: Maps.
        radius: Of the filter, in pixels. Where its tile does not fit shared memory, the kernel does without.
    """
    tile = _SMOOTH_TILE
    grid = tile.grid(size, frames)
    if tile.shared_bytes(radius) <= SHARED_BYTES:
        return Plan("smooth_tiles", Launch(grid, tile.block(), tile.shared_bytes(radius)))
    return Plan("smooth_columns", Launch(grid, tile.block(), 0))


def error_tiles(size: tuple[int, int]) -> int:
    """Tiles of a frame: as many parts as `plan_error` needs memory for."""
    return math.prod(_ERROR_TILE.grid(size, 1))


def plan_error(size: tuple[int, int], frames: int, radius: int, dtype: npt.DTypeLike) -> Plan:
    """Lays out the Proximally Sensitive Error.

    Args:
        size: Height and width of a frame.
        frames: Frames.
        radius: Of the filter, in pixels. Where its tile does not fit shared memory, the kernel does without.
        dtype: Of the image: uint8 or float32.
    """
    tile = _ERROR_TILE
    grid = tile.grid(size, frames)
    element = "byte" if np.dtype(dtype) == np.uint8 else "single"
    if tile.shared_bytes(radius) <= SHARED_BYTES:
        return Plan(f"pse_tiles_{element}", Launch(grid, tile.block(), tile.shared_bytes(radius)))
    # One part of each warp.
    return Plan(f"pse_columns_{element}", Launch(grid, tile.block(), _PART_BYTES * math.prod(tile.block()) // _WARP))


def plan_saliency(positions: int, frames: int) -> Plan:
    """Lays out saliencies of as many positions."""
    threads = _WARP * _WARPS_PER_BLOCK
    return Plan("saliency", Launch((-(-positions // (_QUAD * threads)), 1, frames), (threads, 1, 1), 0))


def plan_frame_map(frame_size: tuple[int, int], frames: int) -> Plan:
    """Lays out anomaly maps at the size of their frames, height and width."""
    down, across = _FRAME_MAP_PIXELS
    grid = (-(-frame_size[1] // (across * _WARP)), -(-frame_size[0] // (down * _WARPS_PER_BLOCK)), frames)
    return Plan("frame_map", Launch(grid, (_WARP, _WARPS_PER_BLOCK, 1), 0))


def float32_threshold(threshold: float) -> float:
    """The float32 that a float32 is above if and only if it is above the threshold."""
    with np.errstate(over="ignore"):
        rounded = np.float32(threshold)
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf)))


def plan_copy(size: tuple[int, int], frames: int, channels: int, planar: bool) -> Plan:
    """Lays out a copy of frames, height and width, with this many channels, into planes or side by side."""
    width, copied = (size[1], channels) if planar else (size[1] * channels, 1)
    grid = (-(-width // _COPY_PIXELS), -(-size[0] // _WARPS_PER_BLOCK), frames)
    shared = _WARPS_PER_BLOCK * (_COPY_PIXELS * copied + 2 * _PIECE_BYTES)
    return Plan("preprocess_copy", Launch(grid, (_WARP, _WARPS_PER_BLOCK, 1), shared))


def plan_interpolate(tables: Interpolation, frames: int) -> Plan:
    """Lays out an interpolation of frames."""
    return Plan("preprocess_interpolate", Launch(_resized_grid(tables, frames), (_WARP, _WARPS_PER_BLOCK, 1), 0))


def plan_average(tables: Averaging, frames: int, channels: int) -> AveragingPlan:
    """Lays out averages of frames.

    Args:
        tables: How frames shrink.
        frames: Frames.
        channels: Of a frame.

    Raises:
        InputError: A frame is so wide that not even one of its rows fits shared memory.
    """
    span = channels * _most_pixels(tables.columns, _WARP)
    # A row may start anywhere in a piece.
    pitch = -(-(span + _PIECE_BYTES - 1) // _PIECE_BYTES) * _PIECE_BYTES
    band = min(_most_pixels(tables.rows, _WARPS_PER_BLOCK), SHARED_BYTES // pitch)
    if band == 0:
        raise InputError(
            f"a frame of which {span} bytes of a row become {_WARP} pixels; expected at most "
            f"{SHARED_BYTES - _PIECE_BYTES}: cut it into narrower tiles, or fit on larger ones"
        )
    launch = Launch(_resized_grid(tables, frames), (_WARP, _WARPS_PER_BLOCK, 1), band * pitch)
    return AveragingPlan(Plan("preprocess_average", launch), band, pitch)


def _resized_grid(tables: Interpolation | Averaging, frames: int) -> tuple[int, int, int]:
    height, width = len(tables.rows[0]), len(tables.columns[0])
    return -(-width // _WARP), -(-height // _WARPS_PER_BLOCK), frames


def _most_pixels(runs: Runs, together: int) -> int:
    """Most pixels of the source that this many pixels side by side are made of."""
    first = np.arange(0, len(runs.first), together)
    last = np.minimum(first + together, len(runs.first)) - 1
    return int((runs.end[last] - runs.first[first]).max())
