"""A GPU, by the interface of `tests.emulation.build.Emulator`: the same tests run on both."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flawline.runtime.errors import DeviceError, MissingExtraError
from flawline.runtime.gpu.buffers import Buffers
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.module import Kernels
from flawline.runtime.gpu.stream import Stream
from flawline.runtime.kernels.cuda.plan import Launch


class RealGpu:
    """The kernels on a GPU whose context is current.

    Args:
        device: The GPU.
        kernels: Its kernels.
    """

    def __init__(self, device: Device, kernels: Kernels) -> None:
        import pycuda.driver

        self._cuda = pycuda.driver
        self._kernels = kernels
        self._stream = Stream()
        self._buffers = Buffers(device, self._stream)
        self._arrays: dict[int, npt.NDArray[Any]] = {}

    def put(self, array: npt.NDArray[Any]) -> int:
        """Copies an array to the GPU: its address there."""
        copy = np.array(array, order="C")
        address = self._buffers.upload(copy)
        self._arrays[address] = copy
        return address

    def get(self, address: int) -> npt.NDArray[Any]:
        """The array at an address."""
        out = np.empty_like(self._arrays[address])
        self._cuda.memcpy_dtoh(out, address)
        return out

    def launch(self, kernel: str, launch: Launch, job: npt.NDArray[np.void], order: int = 0) -> None:
        """Runs a kernel to its end. The GPU orders threads as it likes."""
        self._kernels.kernel(kernel, launch, job).enqueue(self._stream)
        self._stream.synchronize()

    def free(self) -> None:
        """Gives all memory back."""
        self._buffers.free()
        self._stream.close()


@contextmanager
def opened(device: Device, kernels: Kernels) -> Iterator[RealGpu]:
    """A GPU for as long as the block runs."""
    with device.current("in a test"):
        gpu = RealGpu(device, kernels)
        try:
            yield gpu
        finally:
            gpu.free()


def find(config: pytest.Config) -> Device:
    """The GPU of this machine. Without one, tests that were chosen by `-m gpu` end at once, and others are skipped."""
    try:
        return Device()
    except (MissingExtraError, DeviceError) as error:
        chosen = config.option.markexpr
        if chosen == "gpu" or chosen.startswith("gpu and"):
            pytest.exit(str(error), returncode=2)
        pytest.skip(str(error))
