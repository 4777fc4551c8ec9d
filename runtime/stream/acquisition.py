"""The camera's thread: reads blocks into the ring and keeps the books of line numbers."""

import threading

from flawline.runtime.cameras.source import BlockInfo, Source, Status
from flawline.runtime.stream.ring import Ring

READ_TIMEOUT_S = 0.2  # the longest that a request to stop waits for a silent camera


class Acquisition:
    """Moves lines from a source to a ring until the source ends or `stop` is set.

    Args:
        source: An open source; nobody else may use it meanwhile.
        ring: Where blocks and losses go.
        stop: Ends the acquisition when set.

    Attributes:
        lines_sent: Lines that the source has accounted for, arrived or not.
        timeouts: Reads that gave nothing.
        repeated_blocks: Blocks whose line numbers had been seen before; they are ignored.
    """

    def __init__(self, source: Source, ring: Ring, stop: threading.Event) -> None:
        self._source = source
        self._ring = ring
        self._stop = stop
        self._next_line: int | None = None
        self._first: BlockInfo | None = None
        self._last: BlockInfo | None = None
        self._received_lines = 0
        self.lines_sent = 0
        self.timeouts = 0
        self.repeated_blocks = 0

    @property
    def line_rate(self) -> float | None:
        """Lines received per second between the arrivals of the first and of the last block; None if no time went by."""
        if self._first is None or self._last is None:
            return None
        nanoseconds = self._last.arrival_time_ns - self._first.arrival_time_ns
        lines = self._received_lines - self._first.lines
        return lines * 1e9 / nanoseconds if nanoseconds > 0 else None

    def run(self) -> None:
        """Acquires; to be run in a thread of its own.

        Raises:
            FlawlineError: The source cannot go on. What it gave before is in the ring.
        """
        try:
            self._acquire()
        finally:
            self._ring.end()

    def _acquire(self) -> None:
        block = self._ring.spare()
        while not self._stop.is_set():
            info = self._source.read(block.buffer, READ_TIMEOUT_S)
            if info.status is Status.END:
                return
            if info.status is Status.TIMEOUT:
                self.timeouts += 1
                continue
            if not self._account(info):
                continue
            if info.status is Status.OK:
                self._first = self._first or info
                self._last = info
                self._received_lines += info.lines
                block = self._ring.commit(block, info)
            else:
                self._ring.lose(info.first_line, info.lines, info.reason or info.status.value, info.detail)

    def _account(self, info: BlockInfo) -> bool:
        """Counts lines as sent; lines that the source skipped without a word are lost. False for a repeated block."""
        expected = info.first_line if self._next_line is None else self._next_line
        if info.first_line < expected:
            self.repeated_blocks += 1
            return False
        self._next_line = info.first_line + info.lines
        self.lines_sent += self._next_line - expected
        if info.first_line > expected:
            self._ring.lose(expected, info.first_line - expected, "skipped")
        return True
