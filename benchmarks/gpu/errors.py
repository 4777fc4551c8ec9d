"""The kernel of the Proximally Sensitive Error on a GPU, and the fastest read of the bytes that it moves."""

from dataclasses import dataclass

import numpy as np

from flawline.benchmarks.gpu.reading import Reader, Region
from flawline.benchmarks.gpu.series import alternate
from flawline.benchmarks.gpu.session import Session, session
from flawline.benchmarks.timing import Timing
from flawline.runtime.errors import FlawlineError
from flawline.runtime.gpu.buffers import ALIGNMENT_BYTES
from flawline.runtime.gpu.device import Device
from flawline.runtime.kernels import proximally_sensitive_error
from flawline.runtime.kernels.cuda import image_calls
from flawline.runtime.kernels.cuda.image_jobs import PART

KERNEL, READ = "kernel", "read"
_RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Measured:
    """A grey frame: uint8 image, float32 reconstruction, float32 map, maximum and mean.

    Attributes:
        side_px: Height and width of the frame.
        sigma_px: Of the Gaussian.
        copies: Frames that take turns.
        bytes: Image, reconstruction and map of one frame.
        read_layout: Loads at once and blocks of the read.
        timings: "kernel"; "read": as many bytes, all of them read.
    """

    side_px: int
    sigma_px: float
    copies: int
    bytes: int
    read_layout: tuple[int, int]
    timings: dict[str, Timing]

    @property
    def times_the_read(self) -> float:
        """Median of the kernel over that of the read."""
        return self.timings[KERNEL].p50_ns / self.timings[READ].p50_ns


def measure(device: Device, side_px: int, sigma_px: float, *, beyond_bytes: int, rounds: int) -> Measured:
    """Compares the kernel with its reference, then times it in alternation with the read.

    Args:
        device: The GPU.
        side_px: Height and width of the frame.
        sigma_px: Of the Gaussian.
        beyond_bytes: What all frames are together larger than.
        rounds: Timed series of each.

    Raises:
        FlawlineError: The kernel computes something else; nothing was timed.
        ResourceError: Memory does not suffice.
        DeviceError: The GPU failed.
    """
    with session(device, "while the Proximally Sensitive Error was timed") as opened:
        return _measure(opened, side_px, sigma_px, beyond_bytes, rounds)


def _measure(opened: Session, side_px: int, sigma_px: float, beyond_bytes: int, rounds: int) -> Measured:
    generator = np.random.default_rng(0)
    size, pixels = (side_px, side_px), side_px**2
    image = generator.integers(0, 256, (1, 1, *size), np.uint8)
    reconstruction = (image + generator.normal(0, 20, image.shape)).astype(np.float32)
    moved = image.nbytes + reconstruction.nbytes + 4 * pixels
    buffers, reader = opened.buffers, Reader(opened)
    call = image_calls.proximal_error(size, 1, sigma_px, np.uint8, buffers.upload)
    call.job["parts"] = buffers.upload(np.zeros((1, image_calls.error_parts(size)), PART))
    call.job["finished"] = buffers.upload(np.zeros(1, np.uint32))
    call.job["maxima"], call.job["means"] = buffers.allocate(4), buffers.allocate(4)
    kernels, regions = [], []
    after_image = -(-image.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    for _ in range(beyond_bytes // moved + 1):
        # In one piece, so that the read has the very bytes of the kernel.
        start = buffers.allocate(after_image + reconstruction.nbytes + 4 * pixels)
        places = (start, start + after_image, start + after_image + reconstruction.nbytes)
        call.job["image"], call.job["reconstruction"], call.job["map"] = places
        opened.upload_to(places[0], image)
        opened.upload_to(places[1], reconstruction)
        kernels.append(opened.kernels.kernel(call.kernel, call.launch, call.job.copy()))
        regions.append(Region(start, moved))
    kernels[-1].enqueue(opened.stream)
    found = opened.download(np.full(size, np.nan, np.float32), places[2])
    expected = proximally_sensitive_error(image, reconstruction, sigma_px).map[0]
    # A comparison that NaN fails.
    if not np.all(np.abs(found - expected) <= _RELATIVE_TOLERANCE * (expected + expected.mean())):
        raise FlawlineError("the kernel of the error disagrees with its reference; nothing was timed")
    cases = {KERNEL: kernels, READ: reader.choose(regions, rounds=max(rounds // 5, 1))}
    timings = alternate(opened, cases, rounds=rounds)
    return Measured(side_px, sigma_px, len(regions), moved, reader.layout, timings)
