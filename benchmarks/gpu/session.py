"""What a measurement has on a GPU, for as long as it lasts."""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.buffers import Buffers
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.module import Kernels
from flawline.runtime.gpu.stream import Stream

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")


@dataclass
class Session:
    """A GPU whose context is current.

    Attributes:
        device: The GPU.
        stream: Where everything runs.
        buffers: All memory.
        kernels: The kernels.
    """

    device: Device
    stream: Stream
    buffers: Buffers
    kernels: Kernels

    def download(self, out: npt.NDArray[Any], address: int) -> npt.NDArray[Any]:
        """Fills an array from an address, once all that was launched has run."""
        self.stream.synchronize()
        cuda.memcpy_dtoh(out, address)
        return out

    def upload_to(self, address: int, array: npt.NDArray[Any]) -> None:
        """Copies an array to memory that was taken before."""
        cuda.memcpy_htod(address, array)


@contextmanager
def session(device: Device, doing: str) -> Iterator[Session]:
    """Opens a session for the block.

    What the block holds of it must go before the context does: call a function in it, and keep nothing.

    Args:
        device: The GPU.
        doing: What the block does, for the error: "the GPU failed DOING".

    Raises:
        DeviceError: The GPU failed.
        FlawlineError: There are no kernels for it.
    """
    with device.current(doing), ExitStack() as owned:
        stream = Stream()
        owned.callback(stream.close)
        buffers = Buffers(device, stream)
        owned.callback(buffers.free)
        opened = Session(device, stream, buffers, Kernels(device))
        try:
            yield opened
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            vars(opened).clear()
