"""The Proximally Sensitive Error against OpenCV's calls for it and against what memory allows, all in one run."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flawline.benchmarks.timing import Timing, alternate
from flawline.runtime.errors import FlawlineError
from flawline.runtime.kernels import ProximalErrorMap, implementations, proximally_sensitive_error, read_bandwidth
from flawline.runtime.kernels.pse import proximity_taps
from flawline.runtime.memory import available_bytes, require

Floats = npt.NDArray[np.float32]

# Copies together exceed the last-level cache by this factor, so that nothing of a copy is left when its turn comes.
_BEYOND_CACHE = 1.25
_RELATIVE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Measured:
    """Square grey images of one size, one sigma and one number of threads.

    Attributes:
        size_px: Height and width.
        sigma_px: Of the Gaussian.
        dtype: Of the images; reconstructions and maps are float32.
        threads: Threads of everything but the writing of the limit.
        copies: Images, reconstructions and maps, each used in turn.
        exceeds_cache: Whether they are together larger than the last-level cache; False where memory is short.
        read_bytes: Of an image and its reconstruction.
        written_bytes: Of a map.
        timings: "kernel": map, maximum and mean; "score": no map; "opencv": residual, separable filter, square and
            maximum in sequence; "read" and "write": the inputs read and a map filled, by the fastest means known here.
    """

    size_px: int
    sigma_px: float
    dtype: str
    threads: int
    copies: int
    exceeds_cache: bool
    read_bytes: int
    written_bytes: int
    timings: dict[str, Timing]

    @property
    def times_faster_than_opencv(self) -> float:
        """Median of OpenCV's calls over that of the kernel."""
        return self.timings["opencv"].p50_ns / self.timings["kernel"].p50_ns

    @property
    def limit_ns(self) -> int:
        """Bytes over bandwidth: the medians of the plain read and the plain write."""
        return self.timings["read"].p50_ns + self.timings["write"].p50_ns

    @property
    def share_of_limit(self) -> float:
        """The limit over the kernel's median."""
        return self.limit_ns / self.timings["kernel"].p50_ns


@dataclass(frozen=True)
class _Copy:
    image: npt.NDArray[Any]
    reconstruction: Floats
    map: Floats


def opencv(
    image: npt.NDArray[Any], reconstruction: Floats, sigma_px: float, scratch: tuple[Floats, Floats], out: Floats
) -> float:
    """The error of a grey image the usual way, a call for each step.

    Args:
        image: uint8 or float32 (height, width).
        reconstruction: float32 (height, width).
        sigma_px: Of the Gaussian.
        scratch: Two arrays of that kind, for the residual and what the filter makes of it.
        out: float32 (height, width), the map.

    Returns:
        The maximum.
    """
    taps = proximity_taps(sigma_px)
    residual, filtered = scratch
    cv2.subtract(image, reconstruction, dst=residual, dtype=cv2.CV_32F)
    cv2.sepFilter2D(residual, cv2.CV_32F, taps, taps, dst=filtered, borderType=cv2.BORDER_CONSTANT)
    cv2.multiply(filtered, filtered, dst=out)
    return float(cv2.minMaxLoc(out)[1])


def measure(
    size_px: int, sigma_px: float, dtype: str, *, threads: int, cache_bytes: int, rounds: int = 100, seed: int = 0
) -> Measured:
    """Compares the kernel and OpenCV with the reference, then times them in alternation with the limit.

    Args:
        size_px: Height and width.
        sigma_px: Of the Gaussian.
        dtype: Of the images, "uint8" or "float32".
        threads: Threads of everything but the writing of the limit.
        cache_bytes: Size of the last-level cache.
        rounds: Timed calls of each.
        seed: Of the random images.

    Raises:
        FlawlineError: The kernel or OpenCV disagrees with the reference.
        ResourceError: Memory does not suffice for one copy and the reference.
    """
    pixels = size_px**2
    read, written = pixels * (np.dtype(dtype).itemsize + 4), pixels * 4
    # The reference works in float64, on windows of it.
    require(read + written + 64 * pixels, f"images of {size_px} x {size_px} px", "take a lower --size")
    room = (available_bytes() or 8 * (read + written)) // 3
    copies = max(1, min(math.ceil(_BEYOND_CACHE * cache_bytes / (read + written)) + 1, room // (read + written)))
    generator = np.random.default_rng(seed)
    used = [_copy(generator, size_px, dtype) for _ in range(copies)]
    scratch = np.empty((size_px, size_px), np.float32), np.empty((size_px, size_px), np.float32)
    _compare(used[0], sigma_px, scratch)
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        timings = alternate(_cases(used, sigma_px, threads, scratch), rounds=rounds)
    finally:
        cv2.setNumThreads(threads_before)
    exceeds = copies * (read + written) > cache_bytes
    return Measured(size_px, sigma_px, dtype, threads, copies, exceeds, read, written, timings)


def _cases(
    copies: list[_Copy], sigma_px: float, threads: int, scratch: tuple[Floats, Floats]
) -> dict[str, Callable[[], object]]:
    error_map = ProximalErrorMap(copies[0].map.shape, sigma_px, dtype=copies[0].image.dtype, threads=threads)
    # One turn for all, so that none finds in the cache what another has just used.
    turn: Iterator[_Copy] = itertools.cycle(copies)

    def kernel() -> None:
        copy = next(turn)
        error_map(copy.image[None, None], copy.reconstruction[None, None], copy.map[None])

    def score() -> None:
        copy = next(turn)
        error_map.score(copy.image[None, None], copy.reconstruction[None, None])

    def by_opencv() -> None:
        copy = next(turn)
        opencv(copy.image, copy.reconstruction, sigma_px, scratch, copy.map)

    def read() -> None:
        copy = next(turn)
        read_bandwidth(copy.image, threads)
        read_bandwidth(copy.reconstruction, threads)

    return {
        "kernel": kernel,
        "score": score,
        "opencv": by_opencv,
        "read": read,
        "write": lambda: next(turn).map.fill(0),
    }


def _copy(generator: np.random.Generator, size_px: int, dtype: str) -> _Copy:
    size = (size_px, size_px)
    image = generator.integers(0, 256, size, np.uint8)
    reconstruction = generator.standard_normal(size, np.float32)
    reconstruction *= 20
    reconstruction += image
    # Written once, or the first call would wait for its pages.
    return _Copy(image.astype(dtype), reconstruction, np.zeros(size, np.float32))


def _compare(copy: _Copy, sigma_px: float, scratch: tuple[Floats, Floats]) -> None:
    """Refuses to time what computes something else."""
    image, reconstruction = copy.image[None, None], copy.reconstruction[None, None]
    expected = proximally_sensitive_error(image, reconstruction, sigma_px, implementation="reference")
    found = {
        f"the {name} kernel": proximally_sensitive_error(image, reconstruction, sigma_px, implementation=name).map[0]
        for name in implementations()
    }
    opencv(copy.image, copy.reconstruction, sigma_px, scratch, copy.map)
    for name, error in (*found.items(), ("OpenCV", copy.map)):
        # A comparison that NaN fails.
        if not np.all(np.abs(error - expected.map[0]) <= _RELATIVE_TOLERANCE * (expected.map[0] + expected.mean[0])):
            raise FlawlineError(f"{name} disagrees with the reference; nothing was timed")
