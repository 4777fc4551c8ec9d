"""A camera that comes back: opened again with growing pauses, and the web that went by meanwhile accounted for."""

import time
from collections import Counter
from collections.abc import Callable

from flawline.runtime.cameras.numbering import CameraClock
from flawline.runtime.cameras.source import BlockInfo, CameraLostError, Source, Status, line_shape
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.images import Image

REASON = "camera_lost"

_REPORT_NS = 1_000_000_000  # the shortest and the longest time between two reports of one absence
_LONGEST_REPORT_NS = 10_000_000_000
_NONE = BlockInfo(Status.TIMEOUT)


class ReconnectingSource:
    """A source that opens another one again whenever that raises CameraLostError, see `Source`.

    While the camera is away its lines are reported as LOST, after 1 s and then ever more rarely, down to every 10 s: as many as
    the line rate that was asked for, or else the one measured so far, gives for the time since the last block. Lines are
    numbered on across the gap. A camera is back when it has sent something, not when it could be opened.

    Args:
        open_camera: Makes an open source; called again after each loss.
        spec: The words it was named by, for reports.
        first_pause_s: Pause before the second attempt to open it again, seconds; doubled with each further one.
        longest_pause_s: Longest pause, seconds; 0 for no attempt: the error goes on to the reader.
    """

    has_encoder = False

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
        self._accounted_ns = 0  # host's time up to which lines are accounted for; 0 before the first read
        self._rate: float | None = None  # by which lines of a gap are estimated
        self._received_lines = 0  # since the first arrival, for the measured rate
        self._is_away = False  # from the loss of a camera until its successor has sent something
        self._lost_ns = 0
        self._report_ns = 0
        self._opened_ns = 0
        self._held: tuple[BlockInfo, Image] | None = None
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

    def read(self, into: Image, timeout_s: float) -> BlockInfo:
        """See `Source`.

        Raises:
            InputError: The camera did not even start, or came back with another width, format or height of blocks.
            CameraLostError: The camera is gone, and it is not to be opened again.
        """
        if self._held is not None:
            info, pixels = self._held
            self._held = None
            into[: len(pixels)] = pixels
            return self._account(info)
        if self._source is None:
            return self._wait(timeout_s)
        is_first = not self._accounted_ns
        self._accounted_ns = self._accounted_ns or time.monotonic_ns()
        try:
            info = self._source.read(into, timeout_s)
        except CameraLostError as error:
            if is_first:
                raise InputError(str(error)) from error
            if not self._longest_pause_s:
                raise
            self._let_go(str(error))
            return _NONE
        if info.status in (Status.TIMEOUT, Status.END):
            return info
        if self._is_away:
            passed = self._return(info)
            if passed.lines:
                self._held = info, into[: info.lines if info.status is Status.OK else 0].copy()
                return passed
        return self._account(info)

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
        self._rate = self._rate or self.line_rate
        if self._rate is None and self._first_arrival_ns is not None and self._received_lines:
            self._rate = self._received_lines * 1e9 / max(1, self._accounted_ns - self._first_arrival_ns)
        self.close()
        if self._is_away:
            self._refusal = f"; {why}"
        else:
            self._why, self._refusal = why, ""
            self._lost_ns = time.monotonic_ns()
            self._report_ns = self._lost_ns + _REPORT_NS
            self._pause_s = 0.0
        self._is_away = True
        self._postpone()

    def _postpone(self) -> None:
        """Puts the next attempt off, by more each time, until the camera is back."""
        self._attempt_ns = time.monotonic_ns() + round(self._pause_s * 1e9)
        self._pause_s = min(max(2 * self._pause_s, self._first_pause_s), self._longest_pause_s)

    def _wait(self, timeout_s: float) -> BlockInfo:
        """Opens the camera again if it is time to, and gives up the lines that went by."""
        pause_s = (self._attempt_ns - time.monotonic_ns()) / 1e9
        time.sleep(max(0.0, min(pause_s, timeout_s)))
        if pause_s <= timeout_s:
            self._attempt()
        now_ns = time.monotonic_ns()
        if now_ns < self._report_ns:
            return _NONE
        self._report_ns = now_ns + min(max(now_ns - self._lost_ns, _REPORT_NS), _LONGEST_REPORT_NS)
        return self._passed(now_ns, now_ns)

    def _attempt(self) -> None:
        self._attempts += 1
        try:
            source = self._open()
        except FlawlineError as error:
            self._refusal = f"; {error}"
            self._postpone()
            return
        received = (source.block_lines, *line_shape(source))
        expected = (self.block_lines, *line_shape(self))
        if received != expected:
            source.close()
            raise InputError(
                f"{self.spec} came back with blocks {received}; expected {expected}, as when the stream began"
            )
        self._source = source
        self._opened_ns = time.monotonic_ns()

    def _return(self, info: BlockInfo) -> BlockInfo:
        """What went by until the camera was open that now has sent the first thing again."""
        self._reconnects += 1
        self._is_away = False
        self._clock.align()
        if self._rate is None:
            estimate = "the line rate is unknown, a block stands for what went by"
            passed = self._lost(self.block_lines, estimate, info.arrival_time_ns)
        else:
            passed = self._passed(self._opened_ns, info.arrival_time_ns)
        self._base_line = self._next_line
        return passed

    def _passed(self, until_ns: int, now_ns: int) -> BlockInfo:
        """The lines that went by since the last that were accounted for."""
        if self._rate is None:
            return _NONE
        lines = int((until_ns - self._accounted_ns) * self._rate / 1e9)
        if lines <= 0:
            return _NONE
        self._accounted_ns += round(lines * 1e9 / self._rate)
        return self._lost(lines, "lines are estimated by the time that went by", now_ns)

    def _lost(self, lines: int, estimate: str, now_ns: int) -> BlockInfo:
        first_line = self._next_line
        self._next_line += lines
        detail = f"{self._why}{self._refusal}; {estimate}"
        return BlockInfo(Status.LOST, first_line, lines, self._clock.at(now_ns), now_ns, REASON, detail)
