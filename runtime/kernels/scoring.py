"""Mahalanobis distances: of feature maps to anomaly maps and scores, and of plain vectors."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import reference
from flawline.runtime.kernels.checks import require, require_count
from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.implementations import choose
from flawline.runtime.kernels.interpolation import Upsampling, gaussian_taps, resampling_taps

Floats = npt.NDArray[np.float32]


class MahalanobisMap:
    """Feature maps to anomaly maps and scores: allocated once, run many times.

    The embedding of a map position is the sum over the feature maps, each upsampled to the size of the anomaly map; its
    distance to the Gaussian of that position is smoothed with a Gaussian of `sigma` (see `smooth`); the score of a frame
    is the maximum of its anomaly map. A NaN in a feature map gives NaN in every output that depends on it, and as score.

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
        require_count("batch", batch)
        require_count("threads", threads)
        require_count("number of feature maps", len(map_shapes))
        for height, width in (size, *map_shapes):
            require_count("height of a map", height)
            require_count("width of a map", width)
        if gaussians.outputs != size[0] * size[1]:
            raise InputError(
                f"assignment: received {gaussians.outputs} outputs, expected {size[0]} x {size[1]} positions"
            )
        gaussian_taps(sigma)
        resampling_taps(1, 1, upsampling)
        self.size = size
        self.batch = batch
        self.implementation = choose(implementation)
        self._shapes = [(gaussians.dimension, height, width) for height, width in map_shapes]
        self._engine = reference.MahalanobisMap(gaussians, size, upsampling, sigma)

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
        frames = maps[0].shape[0] if isinstance(maps[0], np.ndarray) and maps[0].ndim else 0
        for index, (feature_map, shape) in enumerate(zip(maps, self._shapes, strict=True)):
            require(f"maps[{index}]", feature_map, np.float32, (frames or "B", *shape))
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
    require_count("threads", threads)
    require("x", x, np.float32, ("B", "P or 1", gaussians.dimension))
    frames, vectors = x.shape[:2]
    if vectors not in (1, gaussians.outputs):
        raise InputError(f"x: received {vectors} vectors per frame, expected 1 or {gaussians.outputs}")
    if out is None:
        out = np.empty((frames, gaussians.outputs), np.float32)
    require("out", out, np.float32, (frames, gaussians.outputs), writeable=True)
    choose(implementation)
    out[...] = reference.mahalanobis(x, gaussians)
    return out
