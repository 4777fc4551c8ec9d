"""The kernels on images and maps, each against the fastest read of as many bytes as it moves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from flawline.benchmarks.gpu.reading import Reader, Region
from flawline.benchmarks.gpu.series import alternate
from flawline.benchmarks.gpu.session import Session, session
from flawline.benchmarks.timing import Timing
from flawline.runtime.errors import FlawlineError
from flawline.runtime.gpu.buffers import aligned
from flawline.runtime.gpu.device import Device
from flawline.runtime.kernels import proximally_sensitive_error, reference
from flawline.runtime.kernels.cuda import image_calls
from flawline.runtime.kernels.cuda.calls import Call
from flawline.runtime.kernels.cuda.image_jobs import PART

KERNEL, READ = "kernel", "read"
PSE = "Proximally Sensitive Error"
INPUT_PX = 224
MOST_COPIES = 512
_RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Measured:
    """One kernel on one frame.

    Attributes:
        name: What it does.
        what: From what to what.
        copies: Frames that take turns.
        exceeds_cache: Whether they are together larger than the cache, by the factor asked for.
        bytes: What is read and written of one frame, each byte once.
        read_layout: Loads at once and blocks of the read.
        timings: "kernel"; "read": as many bytes, all of them read.
    """

    name: str
    what: str
    copies: int
    exceeds_cache: bool
    bytes: int
    read_layout: tuple[int, int]
    timings: dict[str, Timing]

    @property
    def bytes_per_second(self) -> float:
        """Bytes of a frame over the kernel's median."""
        return 1e9 * self.bytes / self.timings[KERNEL].p50_ns

    @property
    def times_the_read(self) -> float:
        """Median of the kernel over that of the read."""
        return self.timings[KERNEL].p50_ns / self.timings[READ].p50_ns


class _Slot(NamedTuple):
    """An array that the kernel reads, or writes `expected` to; its address goes into a field of a record of the job."""

    record: npt.NDArray[np.void]
    field: str
    array: npt.NDArray[Any]
    expected: npt.NDArray[Any] | None = None


class _Case(NamedTuple):
    """A kernel, and its arrays."""

    name: str
    what: str
    call: Call
    slots: list[_Slot]


def measure(
    device: Device, frame_px: int, map_size: int, sigma_px: float, *, beyond_bytes: int, rounds: int
) -> Iterator[Measured]:
    """Compares each kernel with its reference, then times it in alternation with the read.

    Args:
        device: The GPU.
        frame_px: Height and width of a frame.
        map_size: Height and width of an anomaly map.
        sigma_px: Of the Gaussian.
        beyond_bytes: What all frames of a kernel are together larger than, unless more than `MOST_COPIES` were needed.
        rounds: Timed series of each.

    Yields:
        The Proximally Sensitive Error, the resize to the network's input, the smoothing, the map at the frame's size.

    Raises:
        FlawlineError: A kernel computes something else; it was not timed.
        ResourceError: Memory does not suffice.
        DeviceError: The GPU failed.
    """
    for make in (_error, _resize, _smooth, _frame_map):
        with session(device, "while the kernels on images were timed") as opened:
            measured = _measure(opened, make(opened, frame_px, map_size, sigma_px), beyond_bytes, rounds)
        yield measured


def _measure(opened: Session, case: _Case, beyond_bytes: int, rounds: int) -> Measured:
    moved = sum(slot.array.nbytes for slot in case.slots)
    copies = min(beyond_bytes // moved + 1, MOST_COPIES)
    reader, kernels, regions = Reader(opened), [], []
    for _ in range(copies):
        # In one piece, so that the read has the bytes of the kernel.
        start = place = opened.buffers.allocate(sum(aligned(slot.array.nbytes) for slot in case.slots))
        places = []
        for slot in case.slots:
            slot.record[slot.field] = place
            opened.upload_to(place, slot.array)
            places.append(place)
            place += aligned(slot.array.nbytes)
        kernels.append(opened.kernels.kernel(case.call.kernel, case.call.launch, case.call.job.copy()))
        regions.append(Region(start, moved))
    kernels[-1].enqueue(opened.stream)
    for slot, place in zip(case.slots, places, strict=True):
        if slot.expected is not None:
            _compare(case.name, opened.download(np.empty_like(slot.array), place), slot.expected)
    cases = {KERNEL: kernels, READ: reader.choose(regions, rounds=max(rounds // 5, 1))}
    return Measured(
        name=case.name,
        what=case.what,
        copies=copies,
        exceeds_cache=copies * moved > beyond_bytes,
        bytes=moved,
        read_layout=reader.layout,
        timings=alternate(opened, cases, rounds=rounds),
    )


def _compare(name: str, found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    # Where a sum of residuals is near 0, what rounding leaves of it counts against the mean.
    allowed = _RELATIVE_TOLERANCE * (expected + expected.mean()) if expected.dtype == np.float32 else 0
    # A comparison that NaN fails.
    if not np.all(np.abs(np.subtract(found, expected, dtype=np.float32)) <= allowed):
        raise FlawlineError(f"{name}: the kernel disagrees with its reference; it was not timed")


def _error(opened: Session, frame_px: int, _: int, sigma_px: float) -> _Case:
    generator, size = np.random.default_rng(0), (frame_px, frame_px)
    image = generator.integers(0, 256, (1, 1, *size), np.uint8)
    reconstruction = (image + generator.normal(0, 20, image.shape)).astype(np.float32)
    call = image_calls.proximal_error(size, 1, sigma_px, np.uint8, opened.buffers.upload)
    job = call.job
    job["parts"] = opened.buffers.upload(np.zeros((1, image_calls.error_parts(size)), PART))
    job["finished"] = opened.buffers.upload(np.zeros(1, np.uint32))
    job["maxima"], job["means"] = opened.buffers.allocate(4), opened.buffers.allocate(4)
    expected = proximally_sensitive_error(image, reconstruction, sigma_px, implementation="reference").map
    return _Case(
        PSE,
        f"{frame_px} x {frame_px} px, sigma {sigma_px:g}",
        call,
        [
            _Slot(job, "image", image),
            _Slot(job, "reconstruction", reconstruction),
            _Slot(job, "map", np.full_like(expected, np.nan), expected),
        ],
    )


def _resize(opened: Session, frame_px: int, _: int, __: float) -> _Case:
    image = np.random.default_rng(0).integers(0, 256, (frame_px, frame_px, 3), np.uint8)
    size = (min(INPUT_PX, frame_px),) * 2
    call = image_calls.preprocess(
        image.shape[:2], size, 1, opened.buffers.upload, channels=3, planar=False, interpolation="area"
    )
    expected = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    pixels = call.job["pixels"]
    return _Case(
        "resize",
        f"3 x {frame_px} x {frame_px} to {size[0]} x {size[1]} px",
        call,
        [_Slot(pixels, "source", image), _Slot(pixels, "target", np.zeros_like(expected), expected)],
    )


def _smooth(opened: Session, _: int, map_size: int, sigma_px: float) -> _Case:
    maps = _maps(map_size)
    expected = reference.smooth(maps, sigma_px).astype(np.float32)
    call = image_calls.smooth((map_size, map_size), 1, sigma_px, opened.buffers.upload)
    return _Case(
        "smooth",
        f"{map_size} x {map_size} positions, sigma {sigma_px:g}",
        call,
        [
            _Slot(call.job, "maps", maps),
            _Slot(call.job, "out", np.full_like(maps, np.nan), expected),
            _Slot(call.job, "scores", np.zeros(1, np.float32), expected.max((1, 2))),
        ],
    )


def _frame_map(opened: Session, frame_px: int, map_size: int, _: float) -> _Case:
    maps, size = _maps(map_size), (frame_px, frame_px)
    expected = reference.embeddings([maps[:, None]], size, "bilinear").reshape(1, *size).astype(np.float32)
    call = image_calls.frame_map((map_size, map_size), size, 1, opened.buffers.upload, threshold=np.inf)
    return _Case(
        "frame map",
        f"{map_size} x {map_size} positions to {frame_px} x {frame_px} px, mask",
        call,
        [
            _Slot(call.job, "maps", maps),
            _Slot(call.job, "out", np.full_like(expected, np.nan), expected),
            _Slot(call.job, "mask", np.full(expected.shape, 255, np.uint8), np.zeros(expected.shape, np.uint8)),
        ],
    )


def _maps(map_size: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random((1, map_size, map_size), np.float32)
