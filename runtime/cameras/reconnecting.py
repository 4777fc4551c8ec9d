"""A camera that comes back: opened again with growing pauses, and the web that went by meanwhile accounted for."""

import time
from collections import Counter
from collections.abc import Callable

from flawline.runtime.cameras.numbering import CameraClock
from flawline.runtime.cameras.source import BlockInfo, CameraLostError, Source, Status, line_shape
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.images import Image

REASON = "camera_lost"


def opening(make: Callable[[], Source]) -> Callable[[], Source]:
    """What opens a new source each time, and leaves nothing behind where that fails.

    Args:
        make: Makes a closed source.
    """

    def open_camera() -> Source:
        source = make()
        try:
            source.open()
        except BaseException:
            source.close()
            raise
        return source

    return open_camera


class ReconnectingSource:
    """A source that opens another one again whenever that raises CameraLostError, see `Source`.

    While the camera is away its lines are reported as LOST, read by read: as many as the line rate that was asked for,
    or else the one measured so far, gives for the time since the last block. Lines are numbered on across the gap.

    Args:
        open_camera: Makes an open source; called again after each loss.
        spec: The words it was named by, for reports.
        first_pause_s: Pause before the second attempt to open it again, seconds; doubled with each further one.
        longest_pause_s: Longest pause, seconds; 0 for no attempt: the error goes on to the reader.
    """

    def __init__(
        self,
        open_camera: Callable[[], Source],
        spec: str,
        *,
        first_pause_s: float = 0.1,
        longest_pause_s: float = 10.0,
    ) -> None:
        self.spec = spec
        self.width = 0
        self.channels = 0
        self.block_lines = 0
        self.line_rate: float | None = None
        self._open = open_camera
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._source: Source | None = None
        self._clock = CameraClock()
        self._closed_counters: Counter[str] = Counter()
        self._reconnects = 0
        self._attempts = 0
        self._next_line = 0
        self._base_line = 0  # number, along the whole web, of the open source's first line
        self._first_arrival_ns: int | None = None
        self._accounted_ns = 0  # host's time up to which lines are accounted for
        self._rate: float | None = None  # by which lines of a gap are estimated
        self._received_lines = 0  # since the first arrival, for the measured rate
        self._pause_s = 0.0
        self._attempt_ns = 0
        self._why = ""
        self._refusal = ""

    @property
    def counters(self) -> dict[str, int]:
        """See `Source`."""
        counts = self._closed_counters.copy()
        if self._source is not None:
            counts.update(self._source.counters)
        return {
            **counts,
            "lines_sent": self._next_line,
            "reconnects": self._reconnects,
            "reconnect_attempts": self._attempts,
        }

    def open(self) -> None:
        """See `Source`."""
        self._source = source = self._open()
        self.width, self.channels, self.block_lines = source.width, source.channels, source.block_lines
        self.line_rate = source.line_rate
        self._accounted_ns = time.monotonic_ns()

    def read(self, into: Image, timeout_s: float) -> BlockInfo:
        """See `Source`.

        Raises:
            InputError: The camera came back with another width, format or height of blocks.
            CameraLostError: The camera is gone, and it is not to be opened again.
        """
        if self._source is None:
            return self._wait(timeout_s)
        try:
            info = self._source.read(into, timeout_s)
        except CameraLostError as error:
            if not self._longest_pause_s:
                raise
            self._let_go(str(error))
            return BlockInfo(Status.TIMEOUT)
        return info if info.status in (Status.TIMEOUT, Status.END) else self._account(info)

    def close(self) -> None:
        """See `Source`."""
        if self._source is not None:
            self._closed_counters.update(self._source.counters)
            self._source.close()
            self._source = None

    def _account(self, info: BlockInfo) -> BlockInfo:
        first_line = self._base_line + info.first_line
        self._next_line = first_line + info.lines
        self._accounted_ns = info.arrival_time_ns
        if self._first_arrival_ns is None:
            self._first_arrival_ns, self._received_lines = info.arrival_time_ns, 0
        else:
            self._received_lines += info.lines
        camera_ns = self._clock.read(info.camera_time_ns, info.arrival_time_ns)
        return info._replace(first_line=first_line, camera_time_ns=camera_ns)

    def _let_go(self, why: str) -> None:
        self._why, self._refusal = why, ""
        self._rate = self._rate or self.line_rate
        if self._rate is None and self._first_arrival_ns is not None and self._received_lines:
            self._rate = self._received_lines * 1e9 / max(1, self._accounted_ns - self._first_arrival_ns)
        self.close()
        self._pause_s = self._first_pause_s
        self._attempt_ns = time.monotonic_ns()

    def _wait(self, timeout_s: float) -> BlockInfo:
        """Opens the camera again if it is time to, and gives up the lines that went by."""
        now_ns = time.monotonic_ns()
        pause_s = (self._attempt_ns - now_ns) / 1e9
        if pause_s > timeout_s:
            time.sleep(timeout_s)
            return self._lose_passed()
        time.sleep(max(0.0, pause_s))
        self._attempts += 1
        try:
            source = self._open()
        except FlawlineError as error:
            self._refusal = f"; {error}"
            self._attempt_ns = time.monotonic_ns() + round(self._pause_s * 1e9)
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            return self._lose_passed()
        received = (source.block_lines, *line_shape(source))
        expected = (self.block_lines, *line_shape(self))
        if received != expected:
            source.close()
            raise InputError(
                f"{self.spec} came back with blocks {received}; expected {expected}, as when the stream began"
            )
        self._reconnects += 1
        passed = self._lose_passed()
        if self._rate is None:
            passed = self._lost(self.block_lines, "the line rate is unknown, a block stands for what went by")
        self._source = source
        self._base_line = self._next_line
        self._accounted_ns = time.monotonic_ns()
        self._clock.align()
        return passed

    def _lose_passed(self) -> BlockInfo:
        if self._rate is None:
            return BlockInfo(Status.TIMEOUT)
        lines = int((time.monotonic_ns() - self._accounted_ns) * self._rate / 1e9)
        if not lines:
            return BlockInfo(Status.TIMEOUT)
        self._accounted_ns += round(lines * 1e9 / self._rate)
        return self._lost(lines, "lines are estimated by the time that went by")

    def _lost(self, lines: int, estimate: str) -> BlockInfo:
        first_line, now_ns = self._next_line, time.monotonic_ns()
        self._next_line += lines
        detail = f"{self._why}{self._refusal}; {estimate}"
        return BlockInfo(Status.LOST, first_line, lines, self._clock.at(now_ns), now_ns, REASON, detail)
