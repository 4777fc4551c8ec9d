"""Calls of the Mahalanobis kernels: everything that a launch needs, but for the addresses that change."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.checks import require, require_count
from flawline.runtime.kernels.cuda import jobs
from flawline.runtime.kernels.cuda.plan import Items, Launch, plan
from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.interpolation import Upsampling, resampling_taps

Upload = Callable[[npt.NDArray[Any]], int]
"""Puts a C-contiguous array on the device and says where: an address that is a multiple of 16, kept until the last launch."""

_TYPES = {np.dtype(np.float16): "half", np.dtype(np.float32): "single", np.dtype(np.int8): "byte"}
_CHANNELS_PER_PIECE = 8


class Call(NamedTuple):
    """A launch of a kernel.

    Attributes:
        kernel: Its name.
        launch: Its layout.
        job: Its argument, a scalar of a dtype of `flawline.runtime.kernels.cuda.jobs`. What is left to fill in:
            ``job["work"]["distances"]``, the address of float32 (frames, P) to write to; the addresses of what is
            scored; and ``job["work"]["frames"]`` where there are fewer frames than those that were planned.
    """

    kernel: str
    launch: Launch
    job: npt.NDArray[np.void]

    def of_frames(self, count: int) -> "Call":
        """The same for fewer frames, where a layer of the grid is a frame, as in the kernels on images and maps."""
        columns, rows, _ = self.launch.grid
        return self._replace(launch=self.launch._replace(grid=(columns, rows, count)))


def vector_distances(gaussians: Gaussians, frames: int, upload: Upload, *, shared: bool = False) -> Call:
    """Distances of vectors, as `flawline.runtime.kernels.mahalanobis` gives them.

    Args:
        gaussians: P outputs.
        frames: Frames of a batch, at most.
        upload: Called with each constant array.
        shared: Whether a frame has one vector for all outputs (classes), not one for each.

    Returns:
        The call, but for ``job["source"]["data"]``: the address of float32 (frames, P, d), or (frames, 1, d) if shared.

    Raises:
        InputError: The dimension is too large for a block's shared memory, or the number of frames is not positive.
    """
    work, layout, *_ = plan(gaussians, frames)
    job = np.zeros((), jobs.VECTOR_DISTANCES)
    _fill(job["work"], gaussians, frames, work, upload)
    vectors = 1 if shared else gaussians.outputs
    job["source"]["frame_stride"] = vectors * gaussians.dimension
    job["source"]["output_stride"] = 0 if shared else gaussians.dimension
    return Call(_name("vector", gaussians, work), layout, job)


def map_distances(
    gaussians: Gaussians,
    map_shapes: Sequence[tuple[int, int]],
    size: tuple[int, int],
    frames: int,
    upload: Upload,
    *,
    upsampling: Upsampling = "bilinear",
) -> Call:
    """Distances of the sum of upsampled feature maps, as `flawline.runtime.kernels.MahalanobisMap` gives them unsmoothed.

    Args:
        gaussians: As many outputs as the anomaly map has positions, row by row.
        map_shapes: (height, width) of each feature map.
        size: (height, width) of the anomaly map.
        frames: Frames of a batch, at most.
        upload: Called with each constant array.
        upsampling: "bilinear" (half-pixel centres, clamped at the border) or "nearest".

    Returns:
        The call, but for ``job["source"]["maps"]["data"][i]``: the address of feature map i, float32 (frames, d, h, w).

    Raises:
        InputError: The sizes do not belong together, there are too many maps, the dimension is too large for a block's
            shared memory, or a value is out of its range.
    """
    work, layout, held, _ = plan(gaussians, frames, embedded="map")
    job = np.zeros((), jobs.MAP_DISTANCES)
    job["held"] = held
    shapes = [(gaussians.dimension, height, width) for height, width in map_shapes]
    _fill_maps(job["source"], gaussians, shapes, size, upsampling, upload)
    _fill(job["work"], gaussians, frames, work, upload)
    return Call(_name("map", gaussians, work), layout, job)


def projected_distances(
    gaussians: Gaussians,
    projection: npt.NDArray[np.floating[Any]],
    map_shapes: Sequence[tuple[int, int, int]],
    size: tuple[int, int],
    frames: int,
    upload: Upload,
    *,
    upsampling: Upsampling = "bilinear",
) -> Call:
    """Distances of upsampled feature maps that are concatenated and projected: of Pi x, where a network ends before Pi.

    Args:
        gaussians: As many outputs as the anomaly map has positions, row by row; of d dimensions.
        projection: Pi, float16 or float32 (d, D), C-contiguous.
        map_shapes: (channels, height, width) of each feature map, D channels in all, in the order of Pi's columns.
        size: (height, width) of the anomaly map.
        frames: Frames of a batch, at most.
        upload: Called with each constant array.
        upsampling: "bilinear" (half-pixel centres, clamped at the border) or "nearest".

    Returns:
        The call, but for ``job["source"]["maps"]["maps"]["data"][i]``: the address of feature map i, float32 (frames,
        channels, h, w).

    Raises:
        InputError: As of `map_distances`, or the projection has another shape.
    """
    require_count("number of feature maps", len(map_shapes))
    for depth, _, _ in map_shapes:
        require_count("channels of a map", depth)
    channels = sum(depth for depth, _, _ in map_shapes)
    require("projection", projection, (np.float16, np.float32), (gaussians.dimension, channels))
    work, layout, _, columns = plan(gaussians, frames, embedded="projection")
    job = np.zeros((), jobs.PROJECTED_DISTANCES)
    source = job["source"]
    _fill_maps(source["maps"], gaussians, map_shapes, size, upsampling, upload)
    source["matrix"] = upload(_pieces(projection))
    source["channels"] = channels
    source["half"] = projection.dtype == np.float16
    source["thread_columns"] = columns
    _fill(job["work"], gaussians, frames, work, upload)
    return Call(_name("projected", gaussians, work), layout, job)


def _name(scored: str, gaussians: Gaussians, work: Items) -> str:
    return f"{scored}_distances_{_TYPES[gaussians.factors.dtype]}_{work.vectors_per_item}"


def _fill(job: npt.NDArray[np.void], gaussians: Gaussians, frames: int, work: Items, upload: Upload) -> None:
    factors = job["factors"]
    factors["elements"] = upload(gaussians.factors)
    if gaussians.row_scales is not None:
        factors["row_scales"] = upload(gaussians.row_scales)
    factors["packed"] = gaussians.factors.shape[2]
    factors["rows"] = gaussians.dimension if gaussians.rank is None else gaussians.rank
    factors["dimension"] = gaussians.dimension
    job["means"] = upload(gaussians.means)
    job["scales"] = upload(gaussians.scales)
    job["gaussians"] = upload(work.gaussians)
    job["vectors"] = upload(work.vectors)
    job["items"] = len(work.gaussians)
    job["components"] = gaussians.components
    job["outputs"] = gaussians.outputs
    job["frames"] = frames
    job["woodbury"] = gaussians.form == "woodbury"


def _fill_maps(
    job: npt.NDArray[np.void],
    gaussians: Gaussians,
    shapes: Sequence[tuple[int, int, int]],
    size: tuple[int, int],
    upsampling: Upsampling,
    upload: Upload,
) -> None:
    if not 1 <= len(shapes) <= jobs.MOST_MAPS:
        raise InputError(f"feature maps: received {len(shapes)}, expected 1 to {jobs.MOST_MAPS}")
    for height, width in (size, *(shape[1:] for shape in shapes)):
        require_count("height of a map", height)
        require_count("width of a map", width)
    if gaussians.outputs != size[0] * size[1]:
        raise InputError(f"assignment: received {gaussians.outputs} outputs, expected {size[0]} x {size[1]} positions")
    job["count"] = len(shapes)
    job["width"] = size[1]
    for entry, (channels, height, width) in zip(job["maps"], shapes, strict=False):
        for axis, source, target in (("rows", height, size[0]), ("columns", width, size[1])):
            for name, taps in resampling_taps(source, target, upsampling)._asdict().items():
                entry[axis][name] = upload(taps)
        entry["channels"], entry["height"], entry["width"] = channels, height, width


def _pieces(projection: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Eight channels of a row side by side, then the rows: (D / 8, d, 8), zeros after the last channel."""
    rows, channels = projection.shape
    pieces = -(-channels // _CHANNELS_PER_PIECE)
    padded = np.zeros((rows, pieces * _CHANNELS_PER_PIECE), projection.dtype)
    padded[:, :channels] = projection
    return np.ascontiguousarray(padded.reshape(rows, pieces, _CHANNELS_PER_PIECE).swapaxes(0, 1))
