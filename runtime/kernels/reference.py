"""NumPy twins of the native kernels: the same names and results, float64 inside, written to be read.

The kernels are tested against these functions. They check nothing: `flawline.runtime.kernels` does, before it calls
either of the two.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.interpolation import Upsampling, gaussian_taps, reflect, resampling_taps
from flawline.runtime.kernels.packing import unpack

Floats = npt.NDArray[np.float32]


class MahalanobisMap:
    """Feature maps to anomaly maps and scores; see `flawline.runtime.kernels.MahalanobisMap`."""

    def __init__(self, gaussians: Gaussians, size: tuple[int, int], upsampling: Upsampling, sigma: float) -> None:
        self._gaussians = gaussians
        self._size = size
        self._upsampling: Upsampling = upsampling
        self._sigma = sigma

    def run(self, maps: Sequence[Floats], out: Floats, scores: Floats) -> None:
        """Writes the anomaly maps, float32 (B, h, w), to `out` and their maxima, float32 (B,), to `scores`."""
        vectors = embeddings(maps, self._size, self._upsampling)
        distances = mahalanobis(vectors, self._gaussians).reshape(-1, *self._size)
        out[...] = smooth(distances, self._sigma)
        scores[...] = out.max(axis=(1, 2))


class ProximalErrorMap:
    """Images and reconstructions to Proximally Sensitive Error; see `flawline.runtime.kernels.ProximalErrorMap`."""

    def __init__(self, taps: Floats) -> None:
        self._taps = taps

    def run(
        self, image: npt.NDArray[Any], reconstruction: Floats, out: Floats | None, maxima: Floats, means: Floats
    ) -> None:
        """Writes the map, float32 (B, h, w), unless it is None, and its maximum and mean, float32 (B,)."""
        errors = proximal_error(image, reconstruction, self._taps)
        if out is not None:
            out[...] = errors
        maxima[...], means[...] = errors.max((1, 2)), errors.mean((1, 2))


def embeddings(
    maps: Sequence[npt.NDArray[np.floating]], size: tuple[int, int], upsampling: Upsampling
) -> npt.NDArray[np.float64]:
    """The sum of the upsampled maps, channels last: float64 (B, h * w, d)."""
    frames, channels = maps[0].shape[:2]
    total = np.zeros((frames, channels, *size))
    for feature_map in maps:
        rows = resampling_taps(feature_map.shape[2], size[0], upsampling)
        columns = resampling_taps(feature_map.shape[3], size[1], upsampling)
        source = feature_map.astype(np.float64)
        low, high = source[:, :, rows.low], source[:, :, rows.high]
        source = low + rows.weight[:, None].astype(np.float64) * (high - low)
        low, high = source[..., columns.low], source[..., columns.high]
        total += low + columns.weight.astype(np.float64) * (high - low)
    return np.ascontiguousarray(total.reshape(frames, channels, -1).transpose(0, 2, 1))


def projected_embeddings(
    maps: Sequence[npt.NDArray[np.floating]],
    projection: npt.NDArray[np.floating],
    size: tuple[int, int],
    upsampling: Upsampling,
) -> npt.NDArray[np.float64]:
    """The upsampled maps, concatenated and projected by a matrix (d, D), D the channels of all: float64 (B, h * w, d)."""
    concatenated = np.concatenate([embeddings([feature_map], size, upsampling) for feature_map in maps], axis=-1)
    projected: npt.NDArray[np.float64] = concatenated @ projection.astype(np.float64).T
    return projected


def mahalanobis(x: npt.NDArray[np.floating], gaussians: Gaussians) -> npt.NDArray[np.float64]:
    """Distances, float64 (B, P), of vectors (B, P, d) or (B, 1, d) to the Gaussians of the outputs."""
    distances = np.empty((x.shape[0], gaussians.outputs))
    for gaussian in np.unique(gaussians.assignment):
        outputs = np.flatnonzero(gaussians.assignment == gaussian)
        vectors = x if x.shape[1] == 1 else x[:, outputs]
        # One Gaussian at a time, because all factors in float64 would take eight times the memory of the packed ones.
        row_scales = None if gaussians.row_scales is None else gaussians.row_scales[gaussian]
        factors = unpack(gaussians.factors[gaussian], gaussians.dimension, gaussians.rank, row_scales)
        centred = vectors[..., None, :].astype(np.float64) - gaussians.means[gaussian]
        products = np.einsum("kij,bnkj->bnki", factors.astype(np.float64), centred)
        squared = (products**2).sum(-1)
        if gaussians.form == "woodbury":
            squared = np.maximum((centred**2).sum(-1) - squared, 0)
        squared *= gaussians.scales[gaussian].astype(np.float64) ** 2
        distances[:, outputs] = np.sqrt(squared.min(-1))
    return distances


def smooth(maps: npt.NDArray[np.floating], sigma: float) -> npt.NDArray[np.float64]:
    """The maps, (B, h, w), under a Gaussian of sigma pixels: float64 (B, h, w)."""
    taps = gaussian_taps(sigma).astype(np.float64)
    smoothed = maps.astype(np.float64)
    for axis in (1, 2):
        border = reflect(maps.shape[axis], len(taps) // 2)
        padded = np.take(smoothed, border, axis)
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis)
        smoothed = windows @ taps
    return smoothed


def proximal_error(image: npt.NDArray[Any], reconstruction: Floats, taps: Floats) -> npt.NDArray[np.float64]:
    """Squares of the residuals, (B, channels, h, w), filtered by taps along both axes, mean over channels: (B, h, w)."""
    filtered = image.astype(np.float64) - reconstruction
    radius = len(taps) // 2
    for axis in (2, 3):
        border = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(filtered, border), len(taps), axis)
        filtered = windows @ taps.astype(np.float64)
    errors: npt.NDArray[np.float64] = (filtered**2).mean(1)
    return errors
