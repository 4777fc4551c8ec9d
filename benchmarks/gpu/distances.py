"""The Mahalanobis kernels on a GPU against the fastest read of the same factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.gpu.reading import PIECE_BYTES, Reader, Region
from flawline.benchmarks.gpu.series import alternate
from flawline.benchmarks.gpu.session import Session, session
from flawline.benchmarks.gpu.statistics import Floats, random_gaussians, random_maps
from flawline.benchmarks.timing import Timing
from flawline.runtime.errors import FlawlineError
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.module import Kernel
from flawline.runtime.kernels import Gaussians, embeddings, mahalanobis
from flawline.runtime.kernels.cuda import calls

FRAMES_OF_A_BATCH = 8
KERNEL, BATCH, READ, INSIDE = "kernel", f"kernel, {FRAMES_OF_A_BATCH} frames", "read", "projection inside"
CHANNELS = (64, 128, 256)
"""Of ResNet-18's layers 1 to 3, for the kernel with the projection inside."""

_RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Measured:
    """One dimension and one type of factors, a Gaussian to each position.

    Attributes:
        dimension: d.
        positions: P.
        factors: "float16", "float32" or "int8".
        copies: Models that take turns.
        exceeds_cache: Whether the factors of all of them are together larger than the cache, by the factor asked for.
        factor_bytes: Stored bytes of the factors of one, row scales included.
        bytes: What one frame takes at least: factors, means, feature maps and distances.
        read_layout: Loads at once and blocks of the read.
        timings: "kernel": feature maps of one frame to distances; "kernel, 8 frames"; "read": the factors alone, row
            scales left out, in the fastest layout; "projection inside": maps of 448 channels, projected in the kernel.
    """

    dimension: int
    positions: int
    factors: str
    copies: int
    exceeds_cache: bool
    factor_bytes: int
    bytes: int
    read_layout: tuple[int, int]
    timings: dict[str, Timing]

    @property
    def bytes_per_second(self) -> float:
        """Bytes of a frame over the kernel's median."""
        return 1e9 * self.bytes / self.timings[KERNEL].p50_ns

    @property
    def share_of_read(self) -> float:
        """Median of the read over that of the kernel."""
        return self.timings[READ].p50_ns / self.timings[KERNEL].p50_ns

    @property
    def cost_of_batch(self) -> float:
        """Median of a batch over that of one frame."""
        return self.timings[BATCH].p50_ns / self.timings[KERNEL].p50_ns


def measure(
    device: Device,
    dimension: int,
    factors: str,
    *,
    map_size: int,
    beyond_bytes: int,
    rounds: int,
    inside: bool = False,
) -> Measured:
    """Compares the kernel with the one of the CPU, then times it in alternation with the read.

    Args:
        device: The GPU.
        dimension: d.
        factors: "float16", "float32" or "int8".
        map_size: Height and width of the map; feature maps have this size, a half and a quarter of it.
        beyond_bytes: What the factors of all models are together larger than, unless memory is short.
        rounds: Timed series of each.
        inside: Whether the kernel with the projection inside is timed as well.

    Raises:
        FlawlineError: A kernel computes something else; nothing was timed.
        ResourceError: Memory does not suffice for one model.
        DeviceError: The GPU failed.
    """
    with session(device, "while the Mahalanobis step was timed") as opened:
        return _measure(opened, dimension, factors, map_size, beyond_bytes, rounds, inside)


def _measure(
    opened: Session, dimension: int, factors: str, map_size: int, beyond_bytes: int, rounds: int, inside: bool
) -> Measured:
    size = (map_size, map_size)
    shapes = [(map_size // scale, map_size // scale) for scale in (1, 2, 4)]
    gaussians = random_gaussians(map_size**2, dimension, factors)
    maps = random_maps(FRAMES_OF_A_BATCH, dimension, shapes)
    row_scales = 0 if gaussians.row_scales is None else gaussians.row_scales.nbytes
    factor_bytes = gaussians.factors.nbytes + row_scales
    reader = Reader(opened)
    free, _ = opened.device.memory_bytes()
    copies = max(1, min(beyond_bytes // factor_bytes + 1, free // (2 * factor_bytes)))
    models = [_Model(opened, gaussians, maps, size) for _ in range(copies)]
    _compare(opened, models[0], gaussians, maps, size)
    words = gaussians.factors.reshape(-1).view(np.uint8)
    whole = words[: words.size // PIECE_BYTES * PIECE_BYTES].view(np.uint32)
    reader.check(models[0].factors, np.bitwise_xor.reduce(whole))
    cases = {
        KERNEL: [model.kernels[1] for model in models],
        BATCH: [model.kernels[FRAMES_OF_A_BATCH] for model in models],
        READ: reader.choose([model.factors for model in models], rounds=max(rounds // 5, 1)),
    }
    if inside:
        cases[INSIDE] = [model.projecting(shapes) for model in models]
    return Measured(
        dimension=dimension,
        positions=gaussians.outputs,
        factors=factors,
        copies=copies,
        exceeds_cache=copies * factor_bytes > beyond_bytes,
        factor_bytes=factor_bytes,
        bytes=factor_bytes + gaussians.means.nbytes + sum(each[0].nbytes for each in maps) + 4 * gaussians.outputs,
        read_layout=reader.layout,
        timings=alternate(opened, cases, rounds=rounds),
    )


class _Model:
    """Factors, maps and distances of their own on the GPU.

    Args:
        opened: The GPU.
        gaussians: Its statistics.
        maps: Feature maps of a batch.
        size: Of the map of distances.
    """

    def __init__(self, opened: Session, gaussians: Gaussians, maps: Sequence[Floats], size: tuple[int, int]) -> None:
        self._opened, self._gaussians, self._size = opened, gaussians, size
        arrays = (gaussians.factors, gaussians.means, gaussians.scales, gaussians.row_scales)
        # Once, for all calls.
        self._statistics = {id(array): opened.buffers.upload(array) for array in arrays if array is not None}
        self.factors = Region(self._statistics[id(gaussians.factors)], gaussians.factors.nbytes)
        self.distances = opened.buffers.allocate(4 * len(maps[0]) * gaussians.outputs)
        addresses = [opened.buffers.upload(each) for each in maps]
        shapes = [(each.shape[2], each.shape[3]) for each in maps]
        self.kernels: dict[int, Kernel] = {}
        for frames in (1, len(maps[0])):
            call = calls.map_distances(gaussians, shapes, size, frames, self._upload)
            call.job["source"]["maps"]["data"][: len(maps)] = addresses
            call.job["work"]["distances"] = self.distances
            self.kernels[frames] = opened.kernels.kernel(*call)

    def projecting(self, shapes: Sequence[tuple[int, int]]) -> Kernel:
        """The kernel that projects maps of more channels as it goes, by an fp16 matrix."""
        generator = np.random.default_rng(2)
        deep = [(channels, *shape) for channels, shape in zip(CHANNELS, shapes, strict=True)]
        matrix = generator.standard_normal((self._gaussians.dimension, sum(CHANNELS)), np.float32).astype(np.float16)
        call = calls.projected_distances(self._gaussians, matrix, deep, self._size, 1, self._upload)
        maps = [generator.standard_normal((1, *shape), np.float32) for shape in deep]
        call.job["source"]["maps"]["maps"]["data"][: len(maps)] = [self._upload(each) for each in maps]
        call.job["work"]["distances"] = self.distances
        return self._opened.kernels.kernel(*call)

    def _upload(self, array: npt.NDArray[Any]) -> int:
        return self._statistics.get(id(array)) or self._opened.buffers.upload(array)


def _compare(
    opened: Session, model: _Model, gaussians: Gaussians, maps: Sequence[Floats], size: tuple[int, int]
) -> None:
    expected = mahalanobis(embeddings(maps, size), gaussians)
    for frames, kernel in model.kernels.items():
        kernel.enqueue(opened.stream)
        found = opened.download(np.full((frames, gaussians.outputs), np.nan, np.float32), model.distances)
        # A comparison that NaN fails.
        if not np.all(np.abs(found - expected[:frames]) <= _RELATIVE_TOLERANCE * expected[:frames]):
            raise FlawlineError(
                f"the kernel for {frames} frames of dimension {gaussians.dimension} disagrees with that of the CPU; "
                "nothing was timed"
            )
