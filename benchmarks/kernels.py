"""The Mahalanobis step against the fastest read of the same bytes, ONNX Runtime and NumPy, all in one run."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.rivals import numpy_matmul, onnx_runtime
from flawline.benchmarks.timing import Timing, alternate
from flawline.runtime.errors import FlawlineError
from flawline.runtime.kernels import (
    Gaussians,
    implementations,
    mahalanobis,
    pack,
    packed_size,
    padded_rows,
    read_bandwidth,
)
from flawline.runtime.memory import available_bytes, require

Floats = npt.NDArray[np.float32]

FRAMES_OF_A_BATCH = 8
BATCH = f"kernel, {FRAMES_OF_A_BATCH} frames"
# Copies together exceed the last-level cache by this factor, so that nothing of a copy is left when its turn comes.
_BEYOND_CACHE = 1.25
# Untimed calls before each timed one. A cache that is filled by evictions from the one before it takes more than one pass
# to hold an array again. Among copies one call, on the copy before, wakes the threads and leaves the next copy cold.
_PRIMING_CALLS = {"cache": 4, "memory": 1}
_COMPARED_POSITIONS = 64
_RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Measured:
    """One dimension and one number of threads, position-tied.

    Attributes:
        dimension: d.
        positions: P, as many Gaussians.
        factors: "float16", "float32" or "int8".
        rank: Rows of a factor in the Woodbury form, None for triangles.
        threads: Threads of everything but NumPy.
        residence: "cache": each timed call follows untimed ones of its own. "memory": each call takes the next of
            several copies of what it reads.
        copies: Copies of the factors.
        exceeds_cache: Whether the copies are together larger than the last-level cache; False where memory is short.
        factor_bytes: Stored bytes of the packed factors, row scales included.
        necessary_bytes: d (d + 1) / 2 numbers per triangle, r (2 d - r + 1) / 2 per factor of rank r.
        timings: "kernel": one frame; "read": `read_bandwidth` of the factors; "kernel, 8 frames": a batch;
            "onnxruntime" and "numpy": the full fp32 inverse.
    """

    dimension: int
    positions: int
    factors: str
    rank: int | None
    threads: int
    residence: str
    copies: int
    exceeds_cache: bool
    factor_bytes: int
    necessary_bytes: int
    timings: dict[str, Timing]

    @property
    def bytes_per_second(self) -> float:
        """Stored bytes of the factors over the kernel's median time."""
        return 1e9 * self.factor_bytes / self.timings["kernel"].p50_ns

    @property
    def share_of_read(self) -> float:
        """The kernel's bandwidth over that of the plain read, medians."""
        return self.timings["read"].p50_ns / self.timings["kernel"].p50_ns

    @property
    def times_cheaper_in_a_batch(self) -> float:
        """Median of one frame over the median of a batch, per frame."""
        return self.timings["kernel"].p50_ns * FRAMES_OF_A_BATCH / self.timings[BATCH].p50_ns

    def times_faster_than(self, rival: str) -> float:
        """Median of a rival over that of the kernel."""
        return self.timings[rival].p50_ns / self.timings["kernel"].p50_ns


def measure(
    dimension: int,
    factors: str,
    *,
    threads: Sequence[int],
    cache_bytes: int,
    rank: int | None = None,
    positions: int = 3136,
    rounds: int = 100,
    seed: int = 0,
) -> list[Measured]:
    """Compares the kernel with its reference, then times it in alternation with what it is measured against.

    Args:
        dimension: d.
        factors: "float16", "float32" or "int8".
        threads: Numbers of threads, one after the other.
        cache_bytes: Size of the last-level cache.
        rank: Rows of a factor in the Woodbury form, None for triangles.
        positions: P.
        rounds: Timed calls of each.
        seed: Of the random factors, means and vectors.

    Returns:
        For each number of threads, cache-resident and rotating among copies.

    Raises:
        FlawlineError: The kernel disagrees with its reference.
        ResourceError: Memory does not suffice for one copy.
    """
    itemsize = np.dtype(factors).itemsize
    scale_bytes = 2 * padded_rows(dimension, rank) if factors == "int8" else 0
    factor_bytes = positions * (packed_size(dimension, rank) * itemsize + scale_bytes)
    inverse_bytes = positions * dimension**2 * 4
    require(2 * (factor_bytes + inverse_bytes) + (1 << 28), f"timing {positions} positions", "take a lower dimension")
    room = (available_bytes() or 4 * factor_bytes) // 3
    copies = _copies(factor_bytes, cache_bytes, room)
    generator = np.random.default_rng(seed)
    gaussians = [_random_gaussians(generator, positions, dimension, rank, factors) for _ in range(copies)]
    inverses = [
        _uniform(generator, (positions, dimension, dimension)) for _ in range(_copies(inverse_bytes, cache_bytes, room))
    ]
    vectors = _uniform(generator, (FRAMES_OF_A_BATCH, positions, dimension))
    _compare(gaussians[0], vectors[:1])
    rows = rank or dimension
    return [
        Measured(
            dimension=dimension,
            positions=positions,
            factors=factors,
            rank=rank,
            threads=count,
            residence=residence,
            copies=used,
            exceeds_cache=used * factor_bytes > cache_bytes,
            factor_bytes=factor_bytes,
            necessary_bytes=positions * rows * (2 * dimension - rows + 1) // 2 * itemsize,
            timings=_time(gaussians[:used], inverses[:used], vectors, count, rounds, prime=_PRIMING_CALLS[residence]),
        )
        for count in threads
        for residence, used in (("cache", 1), ("memory", copies))
    ]


def _time(
    gaussians: Sequence[Gaussians],
    inverses: Sequence[Floats],
    vectors: Floats,
    threads: int,
    rounds: int,
    *,
    prime: int,
) -> dict[str, Timing]:
    # A third of the copies apart, so that none finds in the cache what another has just read.
    kernel_turn, batch_turn, read_turn = (
        itertools.islice(itertools.cycle(gaussians), len(gaussians) * third // 3, None) for third in range(3)
    )
    ort_turn, numpy_turn = itertools.cycle(inverses), itertools.cycle(inverses)
    one, batch = vectors[:1], vectors
    out_one, out_batch = (np.empty(x.shape[:2], np.float32) for x in (one, batch))
    by_onnx_runtime = onnx_runtime(threads)
    paced: dict[str, Callable[[], object]] = {
        "kernel": lambda: mahalanobis(one, next(kernel_turn), out_one, threads=threads),
        BATCH: lambda: mahalanobis(batch, next(batch_turn), out_batch, threads=threads),
        "read": lambda: read_bandwidth(next(read_turn).factors, threads),
        "onnxruntime": lambda: by_onnx_runtime(one[0], next(ort_turn)),
    }
    timings = alternate(paced, rounds=rounds, prime=prime)
    slow: dict[str, Callable[[], object]] = {"numpy": lambda: numpy_matmul(one[0], next(numpy_turn))}
    return timings | alternate(slow, rounds=max(rounds // 4, 1), prime=prime)


def _copies(size: int, cache_bytes: int, room: int) -> int:
    """How many copies of that size exceed the cache, or fit."""
    return max(1, min(math.ceil(_BEYOND_CACHE * cache_bytes / size) + 1, room // size))


def _random_gaussians(
    generator: np.random.Generator, positions: int, dimension: int, rank: int | None, factors: str
) -> Gaussians:
    rows = rank or dimension
    # In the Woodbury form no vector may grow: the largest singular value of R stays below 0.6.
    largest = (2 if rank is None else 1) / math.sqrt(dimension)
    stored = pack(np.tril(np.ones((rows, dimension), np.float32), dimension - rows), np.float32)
    size = (positions, 1, packed_size(dimension, rank))
    if factors == "int8":
        packed = generator.integers(-127, 127, size, np.int8, endpoint=True)
        packed *= stored.astype(np.int8)
        row_scales = np.full((positions, 1, padded_rows(dimension, rank)), largest / 254, np.float16)
    else:
        packed, row_scales = (_uniform(generator, size) * (largest * stored)).astype(factors), None
    return Gaussians(
        means=_uniform(generator, (positions, 1, dimension)),
        factors=packed,
        scales=np.ones((positions, 1), np.float32),
        assignment=np.arange(positions, dtype=np.int32),
        row_scales=row_scales,
        rank=rank,
    )


def _uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Fresh random numbers, -0.5 .. 0.5: zeros could come from one physical page."""
    values = generator.random(shape, dtype=np.float32)
    values -= 0.5
    return values


def _compare(gaussians: Gaussians, x: Floats) -> None:
    """Refuses to time a kernel that computes something else."""
    few = slice(_COMPARED_POSITIONS)
    part = Gaussians(
        gaussians.means[few],
        gaussians.factors[few],
        gaussians.scales[few],
        gaussians.assignment[few],
        None if gaussians.row_scales is None else gaussians.row_scales[few],
        gaussians.rank,
    )
    vectors = np.ascontiguousarray(x[:, few])
    expected = mahalanobis(vectors, part, implementation="reference")
    for name in implementations():
        # A comparison that NaN fails.
        if not np.all(
            np.abs(mahalanobis(vectors, part, implementation=name) - expected) <= _RELATIVE_TOLERANCE * expected
        ):
            raise FlawlineError(f"the {name} kernel disagrees with its reference; nothing was timed")
