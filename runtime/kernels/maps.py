"""What happens to maps before and after the distances: upsampling and sum over scales, and smoothing."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import _native, reference
from flawline.runtime.kernels.checks import require, require_count
from flawline.runtime.kernels.implementations import REFERENCE, choose, native_filter, native_resamplings
from flawline.runtime.kernels.interpolation import Upsampling

Floats = npt.NDArray[np.float32]


def embeddings(
    maps: Sequence[Floats],
    size: tuple[int, int],
    *,
    upsampling: Upsampling = "bilinear",
    out: Floats | None = None,
    threads: int = 1,
    implementation: str | None = None,
) -> Floats:
    """The vectors that `MahalanobisMap` scores: the sum of the upsampled maps, channels last.

    Args:
        maps: One float32 (B, d, h_s, w_s) per scale.
        size: (height, width) that every map is resampled to.
        upsampling: "bilinear" (half-pixel centres, clamped at the border) or "nearest".
        out: float32 (B, height * width, d) to write to; a new array if None.
        threads: Threads to use; the result does not depend on it.
        implementation: One of `implementations()`, None for the fastest.

    Returns:
        float32 (B, height * width, d), positions row by row.

    Raises:
        InputError: Another shape, dtype or layout.
    """
    chosen = choose(implementation, threads)
    require_count("number of feature maps", len(maps))
    require_count("height of the map", size[0])
    require_count("width of the map", size[1])
    require("maps[0]", maps[0], np.float32, ("B", "d", "height", "width"))
    frames, dimension = maps[0].shape[:2]
    for index, feature_map in enumerate(maps):
        require(f"maps[{index}]", feature_map, np.float32, (frames, dimension, "height", "width"))
    if out is None:
        out = np.empty((frames, size[0] * size[1], dimension), np.float32)
    require("out", out, np.float32, (frames, size[0] * size[1], dimension), writeable=True)
    resamplings = native_resamplings([feature_map.shape[2:] for feature_map in maps], size, upsampling)
    if chosen == REFERENCE:
        out[...] = reference.embeddings(maps, size, upsampling)
    else:
        _native.embeddings(chosen, maps, resamplings, *size, threads, out)
    return out


def smooth(
    maps: Floats, sigma: float, *, out: Floats | None = None, threads: int = 1, implementation: str | None = None
) -> Floats:
    """Smooths maps with a sampled Gaussian, cut at radius ceil(3 sigma), its taps normalised to sum 1.

    The border is reflected about the edge pixel, which is not repeated (OpenCV's BORDER_REFLECT_101).

    Args:
        maps: float32 (B, height, width).
        sigma: Standard deviation in pixels; 0 copies.
        out: float32 (B, height, width) to write to; a new array if None.
        threads: Threads to use; the result does not depend on it.
        implementation: One of `implementations()`, None for the fastest.

    Returns:
        float32 (B, height, width).

    Raises:
        InputError: Another shape, dtype or layout, or sigma is negative or not finite.
    """
    chosen = choose(implementation, threads)
    require("maps", maps, np.float32, ("B", "height", "width"))
    smoothing = native_filter(sigma, maps.shape[1:])
    if out is None:
        out = np.empty_like(maps)
    require("out", out, np.float32, maps.shape, writeable=True)
    if np.may_share_memory(maps, out):
        raise InputError(
            "out: received the memory of maps, expected an array of its own; rows are read after others are written"
        )
    if chosen == REFERENCE:
        out[...] = reference.smooth(maps, sigma)
    else:
        _native.smooth(chosen, maps, smoothing, threads, out)
    return out
