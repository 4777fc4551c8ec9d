"""Gaussians and feature maps for timing."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels import Gaussians, pack, pack_int8

Floats = npt.NDArray[np.float32]
_DIFFERENT = 32


def random_gaussians(positions: int, dimension: int, factors: str, seed: int = 0) -> Gaussians:
    """One Gaussian per position. Some factors are drawn, all positions have memory of their own.

    Args:
        positions: P.
        dimension: d.
        factors: "float16", "float32" or "int8".
        seed: Of factors and means.
    """
    generator = np.random.default_rng(seed)
    drawn = min(_DIFFERENT, positions)
    lower = np.tril(generator.standard_normal((drawn, 1, dimension, dimension), np.float32)) / math.sqrt(dimension)
    lower += np.eye(dimension, dtype=np.float32)
    packed, row_scales = pack_int8(lower) if factors == "int8" else (pack(lower, factors), None)
    turns = np.arange(positions) % drawn
    return Gaussians(
        means=generator.standard_normal((positions, 1, dimension), np.float32),
        factors=packed[turns],
        scales=np.ones((positions, 1), np.float32),
        assignment=np.arange(positions, dtype=np.int32),
        row_scales=None if row_scales is None else row_scales[turns],
    )


def random_maps(frames: int, dimension: int, shapes: Sequence[tuple[int, int]], seed: int = 1) -> list[Floats]:
    """Feature maps, float32 (frames, d, h, w) each.

    Args:
        frames: Of a batch.
        dimension: d.
        shapes: (height, width) of each scale.
        seed: Of the values.
    """
    generator = np.random.default_rng(seed)
    return [generator.standard_normal((frames, dimension, *shape), np.float32) for shape in shapes]
