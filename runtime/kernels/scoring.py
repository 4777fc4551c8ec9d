"""Mahalanobis distances: of feature maps to anomaly maps and scores, and of plain vectors."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import _native, reference
from flawline.runtime.kernels.checks import require, require_count
from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.implementations import (
    REFERENCE,
    choose,
    native_filter,
    native_gaussians,
    native_resamplings,
)
from flawline.runtime.kernels.interpolation import Upsampling

Floats = npt.NDArray[np.float32]

# Vectors that make reading a factor from the cache worth no more than the arithmetic.
_VECTORS_PER_FACTOR = 8


class _Engine(Protocol):
    def run(self, maps: Sequence[Floats], out: Floats, scores: Floats) -> None: ...


class MahalanobisMap:
    """Feature maps to anomaly maps and scores: allocated once, run many times.

    The embedding of a map position is the sum over the feature maps, each upsampled to the size of the anomaly map
    (see `embeddings`); its distance to the Gaussian of that position (see `mahalanobis`) is smoothed (see `smooth`); the
    score of a frame is the maximum of its anomaly map. NaN in a feature map gives NaN in every output that depends on
    it, and as score.

    Results do not depend on the number of threads, nor on the frames beside a frame in the batch, bit for bit. One
    object may be called from several Python threads; they wait for each other.

    Args:
        gaussians: As many outputs as the anomaly map has positions, row by row.
        map_shapes: (height, width) of each feature map, in the order of the call.
        size: (height, width) of the anomaly map.
        upsampling: "bilinear" (half-pixel centres, clamped at the border) or "nearest".
        batch: Largest number of frames per call. A batch reads each factor once.
        sigma: Standard deviation of the smoothing in pixels of the anomaly map; 0 for none.
        threads: Threads of this object, the calling one included.
        implementation: One of `implementations()`, None for the fastest.

    Raises:
        InputError: The sizes do not belong together, or a value is out of its range.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        map_shapes: Sequence[tuple[int, int]],
        size: tuple[int, int],
        *,
        upsampling: Upsampling = "bilinear",
        batch: int = 1,
        sigma: float = 0.0,
        threads: int = 1,
        implementation: str | None = None,
    ) -> None:
        chosen = choose(implementation, threads)
        require_count("batch", batch)
        require_count("number of feature maps", len(map_shapes))
        for height, width in (size, *map_shapes):
            require_count("height of a map", height)
            require_count("width of a map", width)
        if gaussians.outputs != size[0] * size[1]:
            raise InputError(
                f"assignment: received {gaussians.outputs} outputs, expected {size[0]} x {size[1]} positions"
            )
        self.size = size
        self.batch = batch
        self.implementation = chosen
        self._shapes = [(gaussians.dimension, height, width) for height, width in map_shapes]
        # Made for the reference too, since they check sigma and the kind of upsampling.
        resamplings = native_resamplings(map_shapes, size, upsampling)
        smoothing = native_filter(sigma, size)
        self._engine: _Engine
        if chosen == REFERENCE:
            self._engine = reference.MahalanobisMap(gaussians, size, upsampling, sigma)
        else:
            rows = _rows_per_group(gaussians, batch)
            order = gaussians.processing_order(rows * size[1])
            self._engine = _native.MahalanobisMap(
                chosen, native_gaussians(gaussians), resamplings, smoothing, order, *size, rows, batch, threads
            )

    def __call__(self, maps: Sequence[Floats], out: Floats | None = None) -> tuple[Floats, Floats]:
        """Scores up to `batch` frames.

        Args:
            maps: One float32 (B, d, h_s, w_s) per feature map, 1 <= B <= batch.
            out: float32 (B, h, w) to write the anomaly maps to; a new array if None.

        Returns:
            The anomaly maps, float32 (B, h, w), and the scores, float32 (B,).

        Raises:
            InputError: Another number of maps, shape, dtype or layout.
        """
        if len(maps) != len(self._shapes):
            raise InputError(f"maps: received {len(maps)}, expected {len(self._shapes)}")
        require("maps[0]", maps[0], np.float32, ("B", *self._shapes[0]))
        frames = len(maps[0])
        for index, (feature_map, shape) in enumerate(zip(maps, self._shapes, strict=True)):
            require(f"maps[{index}]", feature_map, np.float32, (frames, *shape))
        if frames > self.batch:
            raise InputError(f"maps: received {frames} frames, expected at most {self.batch}")
        if out is None:
            out = np.empty((frames, *self.size), np.float32)
        require("out", out, np.float32, (frames, *self.size), writeable=True)
        scores = np.empty(frames, np.float32)
        self._engine.run(maps, out, scores)
        return out, scores


def mahalanobis(
    x: Floats,
    gaussians: Gaussians,
    out: Floats | None = None,
    *,
    threads: int = 1,
    implementation: str | None = None,
) -> Floats:
    """Distances of vectors to the Gaussians of the outputs: min over components of scale * ||W (x - mean)||.

    Args:
        x: float32 (B, P, d), a vector for each output, or (B, 1, d), one vector for all outputs (classes).
        gaussians: P outputs. NaN in a vector gives NaN.
        out: float32 (B, P) to write to; a new array if None.
        threads: Threads to use, the calling one included; the result does not depend on it, bit for bit.
        implementation: One of `implementations()`, None for the fastest.

    Returns:
        float32 (B, P).

    Raises:
        InputError: Another shape, dtype or layout.
    """
    chosen = choose(implementation, threads)
    require("x", x, np.float32, ("B", "P or 1", gaussians.dimension))
    frames, vectors = x.shape[:2]
    if vectors not in (1, gaussians.outputs):
        raise InputError(f"x: received {vectors} vectors per frame, expected 1 or {gaussians.outputs}")
    if out is None:
        out = np.empty((frames, gaussians.outputs), np.float32)
    require("out", out, np.float32, (frames, gaussians.outputs), writeable=True)
    if chosen == REFERENCE:
        out[...] = reference.mahalanobis(x, gaussians)
    else:
        _native.mahalanobis(chosen, x, native_gaussians(gaussians), gaussians.order, threads, out)
    return out


def _rows_per_group(gaussians: Gaussians, batch: int) -> int:
    """Rows of a map to embed before they are scored: more than one only where their Gaussians are the same."""
    shared = gaussians.outputs // gaussians.count
    return max(1, min(shared, -(-_VECTORS_PER_FACTOR // batch)))
