"""Calls of the kernels on images and maps: everything that a launch needs, but for the addresses that change."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.checks import require_count
from flawline.runtime.kernels.cuda import image_jobs as jobs
from flawline.runtime.kernels.cuda import image_plan as plan
from flawline.runtime.kernels.cuda.calls import Call, Upload
from flawline.runtime.kernels.cuda.resize_tables import Averaging, resize_tables
from flawline.runtime.kernels.interpolation import Upsampling, gaussian_taps, reflect, resampling_taps
from flawline.runtime.kernels.pse import proximity_taps


def smooth(size: tuple[int, int], frames: int, sigma: float, upload: Upload) -> Call:
    """Smoothing of anomaly maps, as `flawline.runtime.kernels.smooth` does it, and their maxima.

    Args:
        size: (height, width) of a map.
        frames: Maps.
        sigma: Standard deviation in pixels; 0 copies.
        upload: Called with each constant array.

    Returns:
        The call, but for the addresses ``job["maps"]`` of float32 (frames, height, width), none negative; ``job["out"]``
        of as many; and ``job["scores"]`` of float32 (frames,), which must be zero before every launch. A NaN in a map is
        the score of its frame.

    Raises:
        InputError: A size is not positive, or sigma is negative or not finite.
    """
    _require_sizes(size, frames)
    taps = gaussian_taps(sigma)
    radius = len(taps) // 2
    job = np.zeros((), jobs.SMOOTH)
    job["filter"]["taps"], job["filter"]["radius"] = upload(taps), radius
    job["height"], job["width"] = size
    job["rows"], job["columns"] = (upload(reflect(pixels, radius)) for pixels in size)
    return Call(*plan.plan_smooth(size, frames, radius), job)


def proximal_error(
    size: tuple[int, int],
    frames: int,
    sigma: float,
    dtype: npt.DTypeLike,
    upload: Upload,
    *,
    channels: int = 1,
    planar: bool = True,
    planar_reconstruction: bool = True,
    normalised: bool = True,
) -> Call:
    """Proximally Sensitive Error, as `flawline.runtime.kernels.proximally_sensitive_error` gives it.

    Args:
        size: (height, width) of a frame.
        frames: Frames, one after the other.
        sigma: Standard deviation in pixels, at least 0.
        dtype: Of the image: uint8 or float32. The reconstruction is float32.
        upload: Called with each constant array.
        channels: Of a frame.
        planar: Whether the image is (frames, channels, height, width); else (frames, height, width, channels).
        planar_reconstruction: The same of the reconstruction.
        normalised: Whether the taps are scaled to sum 1.

    Returns:
        The call, but for the addresses of what is compared, ``job["image"]`` and ``job["reconstruction"]``; of what is to be
        written, ``job["map"]`` of float32 (frames, height, width), ``job["maxima"]`` and ``job["means"]`` of float32 (frames,);
        and of what the kernel works with, ``job["parts"]`` of `error_parts` entries of `PART` for each frame and
        ``job["finished"]`` of uint32 (frames,), zero before the first launch.

    Raises:
        InputError: A size is not positive, another dtype, or sigma is negative or not finite.
    """
    _require_sizes(size, frames)
    require_count("channels", channels)
    if np.dtype(dtype) not in (np.uint8, np.float32):
        raise InputError(f"dtype: received {np.dtype(dtype)}, expected uint8 or float32")
    taps = proximity_taps(sigma, normalised=normalised)
    radius = len(taps) // 2
    job = np.zeros((), jobs.PROXIMAL_ERROR)
    job["filter"]["taps"], job["filter"]["radius"] = upload(taps), radius
    job["height"], job["width"] = size
    job["channels"] = channels
    for name, in_planes in (("image", planar), ("reconstruction", planar_reconstruction)):
        strides, pixels = job[f"{name}_strides"], size[0] * size[1]
        strides["frame"] = pixels * channels
        strides["channel"], strides["pixel"] = (pixels, 1) if in_planes else (1, channels)
        strides["row"] = size[1] * strides["pixel"]
    return Call(*plan.plan_error(size, frames, radius, dtype), job)


def saliency(size: tuple[int, int], frames: int, *, squared: bool = False) -> Call:
    """Saliency of a reconstruction as an anomaly map, and its maximum.

    Args:
        size: (height, width) of a map.
        frames: Maps.
        squared: Whether the map is of squares.

    Returns:
        The call, but for the addresses ``job["saliency"]`` of float32 (frames, height, width), none negative;
        ``job["map"]`` of as many; and ``job["scores"]`` of float32 (frames,), which must be zero before every launch. A NaN
        in a map is the score of its frame.

    Raises:
        InputError: A size is not positive.
    """
    _require_sizes(size, frames)
    job = np.zeros((), jobs.SALIENCY)
    job["positions"], job["squared"] = size[0] * size[1], squared
    return Call(*plan.plan_saliency(size[0] * size[1], frames), job)


def frame_map(
    size: tuple[int, int],
    frame_size: tuple[int, int],
    frames: int,
    upload: Upload,
    *,
    threshold: float = np.inf,
    upsampling: Upsampling = "bilinear",
) -> Call:
    """Anomaly maps at the size of their frames, and masks of what lies above a threshold.

    Args:
        size: (height, width) of a map.
        frame_size: (height, width) of a frame, which the map covers.
        frames: Maps.
        upload: Called with each constant array.
        threshold: Values above it, as float64 compares them, are in the mask.
        upsampling: "bilinear" (half-pixel centres, clamped at the border) or "nearest".

    Returns:
        The call, but for the addresses ``job["maps"]`` of float32 (frames, height, width), and of what is to be written:
        ``job["out"]`` of float32 (frames, frame_height, frame_width) and ``job["mask"]`` of uint8 of that shape, 255 or 0.

    Raises:
        InputError: A size is not positive, or another kind of upsampling.
    """
    _require_sizes(size, frames)
    _require_sizes(frame_size, frames)
    job = np.zeros((), jobs.FRAME_MAP)
    job["height"], job["width"] = size
    job["frame_height"], job["frame_width"] = frame_size
    job["threshold"] = plan.float32_threshold(threshold)
    for axis, source, target in zip(("rows", "columns"), size, frame_size, strict=True):
        _upload_into(job[axis], resampling_taps(source, target, upsampling)._asdict(), upload)
    return Call(*plan.plan_frame_map(frame_size, frames), job)


def preprocess(
    frame_size: tuple[int, int],
    size: tuple[int, int],
    frames: int,
    upload: Upload,
    *,
    channels: int,
    planar: bool,
    interpolation: Literal["area", "linear"],
) -> Call:
    """Frames at the size and in the layout of the network's input, as `flawline.runtime.extractor` resizes them.

    Args:
        frame_size: (height, width) of a frame, or of the part of it that is taken.
        size: (height, width) of the network's input.
        frames: Frames of one launch: rectangles at even spacing in one piece of memory.
        upload: Called with each constant array.
        channels: 1 or 3, side by side in a frame.
        planar: Whether the network takes (B, channels, height, width); else (B, height, width, channels).
        interpolation: What the bundle says.

    Returns:
        The call, but for the addresses ``job["pixels"]["source"]``, the first pixel of uint8, and ``job["pixels"]["target"]``,
        the first slot of the input that is written. Strides, in bytes, are those of frames that lie whole, one after the
        other; where they are tiles of a larger frame, set ``job["pixels"]["row_stride"]`` and ``job["pixels"]["frame_stride"]``.

    Raises:
        InputError: A size is not positive, other channels, another interpolation, or a frame is too wide to be averaged.
    """
    _require_sizes(frame_size, frames)
    _require_sizes(size, frames)
    if channels not in (1, 3):
        raise InputError(f"channels: received {channels}, expected 1 or 3")
    tables = resize_tables(frame_size, size, interpolation)
    if tables is None:
        job = np.zeros((), jobs.COPY)
        chosen = plan.plan_copy(size, frames, channels, planar)
    elif isinstance(tables, Averaging):
        job = np.zeros((), jobs.AVERAGE)
        job["scale"], job["half_up"] = tables.scale, tables.half_up
        averaging = plan.plan_average(tables, frames, channels)
        job["band"], job["pitch"] = averaging.band, averaging.pitch
        chosen = averaging.plan
    else:
        job = np.zeros((), jobs.INTERPOLATE)
        chosen = plan.plan_interpolate(tables, frames)
    if tables is not None:
        _upload_into(job["rows"], tables.rows._asdict(), upload)
        _upload_into(job["columns"], tables.columns._asdict(), upload)
    pixels = job["pixels"]
    pixels["row_stride"] = frame_size[1] * channels
    pixels["frame_stride"] = frame_size[0] * frame_size[1] * channels
    pixels["source_width"] = frame_size[1]
    pixels["height"], pixels["width"] = size
    pixels["channels"], pixels["planar"] = channels, planar
    return Call(*chosen, job)


def error_parts(size: tuple[int, int]) -> int:
    """Entries of `flawline.runtime.kernels.cuda.image_jobs.PART` that the error of a frame, (height, width), needs."""
    return plan.error_tiles(size)


def _require_sizes(size: tuple[int, int], frames: int) -> None:
    require_count("height", size[0])
    require_count("width", size[1])
    require_count("frames", frames)


def _upload_into(job: npt.NDArray[np.void], arrays: Mapping[str, npt.NDArray[Any]], upload: Upload) -> None:
    for name, array in arrays.items():
        job[name] = upload(array)
