"""Bytes and operations of each step, and the time below which no device can do it."""

import math
from dataclasses import dataclass

from flawline.benchmarks.roofline.devices import Device
from flawline.runtime.kernels import packed_size, padded_rows
from flawline.runtime.kernels.pse import proximity_taps

MAP = (56, 56)
POSITIONS = math.prod(MAP)
SCALES = (MAP, (28, 28), (14, 14))
"""Sizes of the feature maps of ResNet-18 and Wide ResNet-50-2 at 224 px, layers 1 to 3."""

FACTORS = {"fp32 inverse": "float32", "fp16 triangle": "float16", "int8 triangle": "int8"}
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Work:
    """What a step reads, writes and computes at least.

    Attributes:
        bytes: Read and written, each once.
        operations: A multiply-add counts as two.
        kind: What computes them: "fp32", "fp16" or "int8".
    """

    bytes: int
    operations: int
    kind: str

    def floor_s(self, device: Device) -> float:
        """Seconds below which a device cannot do it: the larger of bytes over bandwidth and operations over rate.

        Args:
            device: Which one.
        """
        return max(self.bytes / device.bytes_per_second, self.operations / device.rate(self.kind))

    def bound(self, device: Device) -> str:
        """What the floor comes from: "bytes" or "operations"."""
        moving, computing = self.bytes / device.bytes_per_second, self.operations / device.rate(self.kind)
        return "bytes" if moving >= computing else "operations"


def factor_bytes(dimension: int, form: str) -> int:
    """Bytes of the factors, or inverses, of all positions.

    Args:
        dimension: d.
        form: A key of `FACTORS`.
    """
    if form == "fp32 inverse":
        return POSITIONS * dimension**2 * _FLOAT_BYTES
    if form == "fp16 triangle":
        return POSITIONS * packed_size(dimension) * 2
    return POSITIONS * (packed_size(dimension) + 2 * padded_rows(dimension))


def mahalanobis(dimension: int, form: str, batch: int) -> Work:
    """Feature maps of three scales to distances at 3,136 positions, a Gaussian to each.

    Factors and means are read once for the whole batch. Sums are fp32 whatever the factors are stored as.

    Args:
        dimension: d.
        form: A key of `FACTORS`.
        batch: Frames.
    """
    maps = sum(math.prod(size) for size in SCALES)
    once = factor_bytes(dimension, form) + POSITIONS * dimension * _FLOAT_BYTES
    each = _FLOAT_BYTES * (maps * dimension + POSITIONS)
    # A vector is centred, multiplied, and its product either squared and summed or multiplied by the vector itself.
    elements, products = (dimension**2, 2) if form == "fp32 inverse" else (packed_size(dimension), 2)
    operations = POSITIONS * (products * elements + 3 * dimension)
    return Work(once + batch * each, batch * operations, "fp32")


def proximal_error(height: int, width: int, sigma: float, batch: int) -> Work:
    """Proximally Sensitive Error of grey frames: uint8 image, float32 reconstruction, float32 map.

    Args:
        height: Of a frame, px.
        width: Of a frame, px.
        sigma: Of the Gaussian, px.
        batch: Frames.
    """
    pixels = batch * height * width
    taps = len(proximity_taps(sigma))
    # Two passes of multiply-adds, the residual, the square, and the sum and the maximum of the frame.
    return Work(pixels * (1 + 2 * _FLOAT_BYTES), pixels * (4 * taps + 4), "fp32")
