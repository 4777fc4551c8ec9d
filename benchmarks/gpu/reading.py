"""The fastest read of GPU memory, by `read.cu`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flawline.benchmarks.gpu.series import alternate
from flawline.benchmarks.gpu.session import Session
from flawline.runtime.errors import FlawlineError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.module import Kernel
from flawline.runtime.kernels.cuda.compiler import load_image
from flawline.runtime.kernels.cuda.plan import Launch

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")

READ = np.dtype([("data", np.uint64), ("sums", np.uint64), ("pieces", np.int64)], align=True)
"""Job of the kernels `read_*`."""

PIECE_BYTES = 16
_THREADS = 256
_WARP = 32
_LOADS = (2, 4, 8)
_BLOCKS_PER_MULTIPROCESSOR = (2, 4, 8)


class Region(NamedTuple):
    """Memory of the GPU.

    Attributes:
        address: A multiple of 16.
        bytes: What of it is read; what is left of it after whole pieces of 16 bytes is not.
    """

    address: int
    bytes: int


class Layout(NamedTuple):
    """How a read is laid out over the GPU.

    Attributes:
        at_once: Loads of a thread that are under way together.
        blocks: Of 256 threads.
    """

    at_once: int
    blocks: int


class Reader:
    """Reads regions, in the layout that is fastest on this GPU.

    Args:
        opened: The GPU.
    """

    def __init__(self, opened: Session) -> None:
        device = opened.device
        image = load_image("read", device.arch, driver=device.driver.version, folder=Path(__file__).parent)
        self._module = cuda.module_from_buffer(image)
        self._opened = opened
        multiprocessors = cuda.Context.get_device().get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT)
        self.layouts = [
            Layout(loads, count * multiprocessors) for loads in _LOADS for count in _BLOCKS_PER_MULTIPROCESSOR
        ]
        self.layout = self.layouts[0]
        self._sums = np.zeros(max(layout.blocks for layout in self.layouts) * _THREADS // _WARP, np.uint32)
        self._sums_address = opened.buffers.upload(self._sums)

    def choose(self, regions: Sequence[Region], *, rounds: int) -> list[Kernel]:
        """Takes the layout that reads these regions in the least time.

        Args:
            regions: Which ones.
            rounds: Timed series of each layout.

        Returns:
            What reads them, one after the other.
        """
        cases = {layout: [self.kernel(region, layout) for region in regions] for layout in self.layouts}
        timings = alternate(self._opened, cases, rounds=rounds)
        self.layout = min(timings, key=lambda layout: timings[layout].p50_ns)
        return cases[self.layout]

    def kernel(self, region: Region, layout: Layout) -> Kernel:
        """What reads a region.

        Args:
            region: Which one.
            layout: How.
        """
        job = np.zeros((), READ)
        job["data"], job["sums"], job["pieces"] = region.address, self._sums_address, region.bytes // PIECE_BYTES
        function = self._module.get_function(f"read_{layout.at_once}")
        return Kernel(function, Launch((layout.blocks, 1, 1), (_THREADS, 1, 1), 0), job)

    def check(self, region: Region, expected: np.uint32) -> None:
        """Refuses to time a kernel that does not read everything.

        Args:
            region: What it reads.
            expected: The exclusive or of its words.

        Raises:
            FlawlineError: Some layout reads something else.
        """
        for layout in self.layouts:
            self.kernel(region, layout).enqueue(self._opened.stream)
            sums = self._opened.download(self._sums, self._sums_address)
            found = np.bitwise_xor.reduce(sums[: layout.blocks * _THREADS // _WARP])
            if found != expected:
                raise FlawlineError(
                    f"the read with {layout.at_once} loads at once gave {found:#x}, expected {expected:#x}; "
                    "nothing was timed"
                )
