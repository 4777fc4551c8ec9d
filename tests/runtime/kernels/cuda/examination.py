"""What is asked of the kernels whose bugs are planted: few cases, each of which some bug would fail.

Imported by tests, and a program of its own for libraries that are built with AddressSanitizer.
"""

import sys
from pathlib import Path

import numpy as np

from flawline.runtime.kernels import Gaussians, reference
from tests.emulation.build import ORDERS, Emulator
from tests.runtime.kernels.cases import SHAPES, SIZE, TOLERANCE, random_gaussians, random_maps
from tests.runtime.kernels.cuda.running import map_distances, projected_distances, vector_distances

KERNEL = "uint16, half, 4"
"""The instance that is examined: fp16 factors, up to four vectors to an item."""

# Dimension, components and frames that were planned: an odd dimension, and one whose factor takes several warps; the last
# group of blocks is not full in either. Items have room for four vectors: one does not come, or is not on the list.
_CASES = ((17, 2, 4), (70, 1, 3))
_FRAMES = 3


def examine(library: Path, kernels: str) -> None:
    """Holds kernels against the reference, with NaN among the vectors and under several orders of the threads.

    Args:
        library: What has them.
        kernels: The source that they come from: "distances.cu" or "projected.cu".

    Raises:
        AssertionError: A distance is wrong, NaN was hidden, or something was written that should not be.
        LaunchError: Threads wait for each other.
    """
    look = {"distances.cu": _examine_distances, "projected.cu": _examine_projected}[kernels]
    rng = np.random.default_rng(11)
    for d, components, planned in _CASES:
        gaussians = random_gaussians(rng, SIZE, d, components=components)
        for order in range(ORDERS):
            look(Emulator(library), rng, gaussians, planned, order)


def _examine_distances(
    device: Emulator, rng: np.random.Generator, gaussians: Gaussians, planned: int, order: int
) -> None:
    d = gaussians.dimension
    x = rng.standard_normal((_FRAMES, gaussians.outputs, d)).astype(np.float32)
    x[1, 7, 3] = np.nan
    out = vector_distances(device, gaussians, x, planned=planned, order=order)
    _compare(out, reference.mahalanobis(x, gaussians))
    maps = random_maps(rng, _FRAMES, d, SHAPES[2])
    vectors = reference.embeddings(maps, SIZE, "bilinear")
    out = map_distances(device, gaussians, maps, SIZE, planned=planned, order=order)
    _compare(out, reference.mahalanobis(vectors, gaussians))


def _examine_projected(
    device: Emulator, rng: np.random.Generator, gaussians: Gaussians, planned: int, order: int
) -> None:
    projection = (rng.standard_normal((gaussians.dimension, 50)) / 7).astype(np.float16)
    maps = random_maps(rng, _FRAMES, 9, SHAPES[2][:1]) + random_maps(rng, _FRAMES, 41, SHAPES[2][1:])
    vectors = reference.projected_embeddings(maps, projection, SIZE, "bilinear")
    out = projected_distances(device, gaussians, projection, maps, SIZE, planned=planned, order=order)
    _compare(out, reference.mahalanobis(vectors, gaussians))


def _compare(out: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(out[:_FRAMES], expected, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_array_equal(out[_FRAMES:], np.nan)


if __name__ == "__main__":
    examine(Path(sys.argv[1]), sys.argv[2])
