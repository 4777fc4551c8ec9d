"""Memory of a GPU and memory that it shares with the host: asked for before it is taken, and taken once."""

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import ResourceError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.device import Device, first_line
from flawline.runtime.gpu.stream import Stream

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")

ALIGNMENT_BYTES = 256
"""What every address is a multiple of on a GPU, and what each allocation takes at least."""


def aligned(size_bytes: int) -> int:
    """A size, rounded up to where the next allocation begins."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class Memory(Protocol):
    """Where memory of a GPU is taken from: `Buffers`, or a `Counter` of what would be."""

    def upload(self, array: npt.NDArray[Any]) -> int:
        """See `Buffers.upload`."""

    def allocate(self, size_bytes: int) -> int:
        """See `Buffers.allocate`."""


class Counter:
    """Takes nothing and adds up what would be taken.

    Attributes:
        bytes: So far.
    """

    def __init__(self) -> None:
        self.bytes = 0

    def upload(self, array: npt.NDArray[Any]) -> int:
        """See `Buffers.upload`."""
        return self.allocate(array.nbytes)

    def allocate(self, size_bytes: int) -> int:
        """See `Buffers.allocate`."""
        self.bytes += aligned(size_bytes)
        return 0


class Exchange:
    """An array that host and GPU both work on: mapped memory of the host, or pinned memory and again memory of the GPU.

    Args:
        buffers: What the memory of the GPU is taken from.
        shape: Of the array.
        dtype: Of its elements.
        mapped: Whether it is there once.

    Attributes:
        host: The array.
        address: Where the GPU finds it.
    """

    def __init__(self, buffers: "Buffers", shape: tuple[int, ...], dtype: npt.DTypeLike, *, mapped: bool) -> None:
        self._mapped = mapped
        self._stream = buffers.stream
        # First, since that is kept by its owner whatever comes after.
        twin = 0 if mapped else buffers.allocate(math.prod(shape) * np.dtype(dtype).itemsize)
        flags = cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        self.host: npt.NDArray[Any] = cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._allocation = self.host.base
        self.address: int = self._allocation.get_device_pointer() if mapped else twin

    def upload(self, count: int) -> None:
        """Brings the first entries to the GPU, in the order of the stream."""
        if not self._mapped:
            cuda.memcpy_htod_async(self.address, self.host[:count], self._stream.pycuda)

    def download(self, count: int) -> None:
        """Brings the first entries back, in the order of the stream; they are there when that is synchronised."""
        if not self._mapped:
            cuda.memcpy_dtoh_async(self.host[:count], self.address, self._stream.pycuda)

    def free(self) -> None:
        """Gives the memory of the host back."""
        self._allocation.free()


class Buffers:
    """All memory of one owner on a GPU, given back together.

    Its methods may be called only while the context of the GPU is current.

    Args:
        device: The GPU.
        stream: Where it is filled. Work in the default stream would wait for that of every camera.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self.device = device
        self.stream = stream
        self._allocations: list[Any] = []
        self._exchanges: list[Exchange] = []

    def allocate(self, size_bytes: int) -> int:
        """Takes memory of the GPU.

        Args:
            size_bytes: How much.

        Returns:
            The address, a multiple of 16.

        Raises:
            ResourceError: There is not as much.
        """
        try:
            self._allocations.append(cuda.mem_alloc(size_bytes))
        except cuda.MemoryError as error:
            free, _ = self.device.memory_bytes()
            raise ResourceError(
                f"{size_bytes / 1e6:.1f} MB of GPU memory cannot be had, {free / 1e6:.1f} MB are free ({first_line(error)}); "
                "close what else uses the GPU, or use a smaller batch"
            ) from error
        return int(self._allocations[-1])

    def upload(self, array: npt.NDArray[Any]) -> int:
        """Puts an array on the GPU.

        Args:
            array: C-contiguous.

        Returns:
            Its address, a multiple of 16.

        Raises:
            ResourceError: There is not enough memory.
        """
        address = self.allocate(array.nbytes)
        cuda.memcpy_htod_async(address, array, self.stream.pycuda)
        self.stream.synchronize()
        return address

    def exchange(self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, atomic: bool = False) -> Exchange:
        """An array for host and GPU, there once where they share their memory.

        Args:
            shape: Of the array.
            dtype: Of its elements.
            atomic: Whether kernels change it by atomic operations, which memory of the host does not promise.

        Raises:
            ResourceError: There is not enough memory.
        """
        try:
            self._exchanges.append(Exchange(self, shape, dtype, mapped=self.device.integrated and not atomic))
        except cuda.MemoryError as error:
            size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            raise ResourceError(
                f"{size_bytes / 1e6:.1f} MB of pinned memory cannot be had ({first_line(error)}); use a smaller batch"
            ) from error
        return self._exchanges[-1]

    def free(self) -> None:
        """Gives everything back."""
        while self._allocations:
            self._allocations.pop().free()
        while self._exchanges:
            self._exchanges.pop().free()
