"""A stream of the GPU, freed when it is said and not when PyCUDA finds that nobody holds it."""

from typing import TYPE_CHECKING

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")

_NON_BLOCKING = 1


class Stream:
    """A stream that neither waits for the default stream nor keeps others from that during a capture.

    To be made, used and closed only while the context of the GPU is current.

    Attributes:
        pycuda: The stream, as functions of PyCUDA take it.
        handle: The same, as the driver and engines take it.
    """

    def __init__(self) -> None:
        self.pycuda = cuda.Stream(_NON_BLOCKING)
        self.handle: int = self.pycuda.handle

    def synchronize(self) -> None:
        """Waits until everything in the stream has run."""
        self.pycuda.synchronize()

    def close(self) -> None:
        """Frees the stream. Nothing may be left in it."""
        del self.pycuda
