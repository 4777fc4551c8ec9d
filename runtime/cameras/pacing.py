"""The pace of a source that plays what is stored: lines come as from a camera of its line rate, and so does their time."""

import time

from flawline.runtime.cameras.source import BlockInfo, Status


class Pacing:
    """Keeps a line rate from the first read on, and numbers lines.

    Args:
        line_rate: Lines per second; None for as fast as they are read, by the clock of the host.

    Attributes:
        lines_sent: Lines that were numbered so far.
    """

    def __init__(self, line_rate: float | None) -> None:
        self._line_rate = line_rate
        self._start_ns = 0
        self.lines_sent = 0

    def wait_for(self, lines: int, timeout_s: float) -> bool:
        """Sleeps until so many lines in all would have been sent; False if the time is up before.

        Args:
            lines: In all, from the first call on.
            timeout_s: Longest sleep, seconds.
        """
        self._start_ns = self._start_ns or time.monotonic_ns()
        if self._line_rate is None:
            return True
        left_s = (self._start_ns - time.monotonic_ns()) / 1e9 + lines / self._line_rate
        time.sleep(max(0.0, min(left_s, timeout_s)))
        return left_s <= timeout_s

    def sent(self, status: Status, lines: int, reason: str = "", detail: str = "") -> BlockInfo:
        """The next lines, which are here now."""
        first_line = self.lines_sent
        self.lines_sent += lines
        now_ns = time.monotonic_ns()
        camera_ns = now_ns - self._start_ns
        if self._line_rate is not None:
            camera_ns = round(self.lines_sent * 1e9 / self._line_rate)
        return BlockInfo(status, first_line, lines, camera_ns, now_ns, reason, detail)
