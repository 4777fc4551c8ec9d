"""Faults that are planted to see that a check of endurance fails where it should."""

import mmap

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.stream.endless import EndlessWeb
from flawline.runtime.cameras import BlockInfo

FAULTS = {
    "hoard": "a sink that keeps a megabyte of every event",
    "skip": "a camera that leaves out a block half way",
    "slip": "a web that moves on by a line after every mark, which the camera does not count",
    "clock": "a camera whose clock is a tenth too fast",
}

_HOARD_BYTES = 1 << 20


class HoardingSink:
    """Keeps memory for every event."""

    def __init__(self) -> None:
        self._hoard: list[mmap.mmap] = []

    def emit(self, event: object) -> None:
        """Takes more memory: pages of its own, where the heap might have some to spare."""
        pages = mmap.mmap(-1, _HOARD_BYTES)
        pages.write(bytes(_HOARD_BYTES))
        self._hoard.append(pages)

    def close(self) -> None:
        """Does nothing."""


class SkippingWeb(EndlessWeb):
    """Leaves out a block."""

    def read(self, into: npt.NDArray[np.uint8], timeout_s: float) -> BlockInfo:
        """See `Source`."""
        info = super().read(into, timeout_s)
        middle = len(self.camera_times_ns) // 2
        return super().read(into, timeout_s) if info.lines and info.first_line // self.block_lines == middle else info


class SlippingWeb(EndlessWeb):
    """Shows later lines than it says."""

    def _fill(self, into: npt.NDArray[np.uint8], first_line: int) -> None:
        first_line += max(0, self.marks.nearest(first_line))
        into[...] = self._lines[(first_line + np.arange(len(into))) % self._period]
        self.marks.draw(into, first_line)


class FastClockWeb(EndlessWeb):
    """Has a clock that is too fast."""

    def _camera_time_ns(self, now_ns: int) -> int:
        return super()._camera_time_ns(now_ns) * 11 // 10


WEBS: dict[str | None, type[EndlessWeb]] = {"skip": SkippingWeb, "slip": SlippingWeb, "clock": FastClockWeb}
"""By the name of the fault; the others have an `EndlessWeb`."""
