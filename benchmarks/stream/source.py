"""A camera that never runs dry: lines from memory, over and over, at an exact rate."""

import time

import numpy as np
import numpy.typing as npt

from flawline.runtime.cameras import BlockInfo, Status


class MemorySource:
    """Sends the same lines again and again. It stands for a camera and its driver, which cost nothing here.

    Every block is due at a time from the start on, so that a late one makes none of the later ones late.

    Args:
        lines: uint8 (n, width[, 3]), real ones, at least a block; what is left of the last block is not sent.
        line_rate: Lines per second; None for as fast as they are read.
        block_lines: Lines of a block.
        total: Lines after which it ends.
    """

    def __init__(self, lines: npt.NDArray[np.uint8], *, line_rate: float | None, block_lines: int, total: int) -> None:
        self.spec = f"memory of {len(lines)} lines"
        self.width = lines.shape[1]
        self.channels = 1 if lines.ndim == 2 else 3
        self.block_lines = block_lines
        self.line_rate = line_rate
        self.counters = {"lines_sent": 0}
        self._lines = lines
        self._period = len(lines) // block_lines * block_lines
        self._total = total
        self._start_ns = 0

    def open(self) -> None:
        """See `Source`."""

    def read(self, into: npt.NDArray[np.uint8], timeout_s: float) -> BlockInfo:
        """See `Source`."""
        self._start_ns = self._start_ns or time.monotonic_ns()
        first = self.counters["lines_sent"]
        if first >= self._total:
            return BlockInfo(Status.END)
        if self.line_rate is not None:
            due_ns = self._start_ns + round((first + len(into)) * 1e9 / self.line_rate)
            left_s = (due_ns - time.monotonic_ns()) / 1e9
            time.sleep(max(0.0, min(left_s, timeout_s)))
            if left_s > timeout_s:
                return BlockInfo(Status.TIMEOUT)
        self._fill(into, first)
        self.counters["lines_sent"] = first + len(into)
        now_ns = time.monotonic_ns()
        return BlockInfo(Status.OK, first, len(into), self._camera_time_ns(now_ns), now_ns)

    def close(self) -> None:
        """See `Source`."""

    def _fill(self, into: npt.NDArray[np.uint8], first_line: int) -> None:
        """Puts the lines of a block from `first_line` on where they go."""
        start = first_line % self._period
        into[...] = self._lines[start : start + len(into)]

    def _camera_time_ns(self, now_ns: int) -> int:
        """What the camera's clock says at `time.monotonic_ns()`."""
        return now_ns - self._start_ns
