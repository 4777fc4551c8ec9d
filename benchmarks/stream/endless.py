"""A web that goes on for hours: real lines without a seam, a drawn mark at known lines, an encoder, a clock."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.stream.source import MemorySource
from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.web.odometer import COUNTER_BITS

Lines = npt.NDArray[np.uint8]

MARK_PX = 48
"""Height and width of a mark."""

COUNTS_PER_LINE = 4
"""Of the encoder, on average; its speed goes up and down by a tenth."""

_SQUARE_PX = 16
_SWING = 0.1


def there_and_back(lines: Lines, multiple: int) -> Lines:
    """A web that can be repeated without a seam: lines and the same lines in reverse.

    Args:
        lines: uint8 (n, width[, 3]).
        multiple: The lines are cut to a multiple of so many.

    Returns:
        uint8 (2 m, width[, 3]), a copy.
    """
    kept = lines[: len(lines) // multiple * multiple]
    return np.concatenate([kept, kept[::-1]])


class Marks(NamedTuple):
    """Black and white squares at lines that are known.

    Attributes:
        first_line: Of the first mark.
        period: Lines from mark to mark.
        left: Their first pixel.
    """

    first_line: int
    period: int
    left: int

    def line(self, number: int) -> int:
        """First line of a mark, counted from 0."""
        return self.first_line + number * self.period

    def nearest(self, line: float) -> int:
        """Number of the mark that begins nearest to a line."""
        return round((line - self.first_line) / self.period)

    def count(self, lines: int) -> int:
        """Marks that begin on the first `lines` lines."""
        return max(0, -(-(lines - self.first_line) // self.period))

    def draw(self, into: Lines, first_line: int) -> None:
        """Draws what lies on a block, uint8 (n, width[, 3]), that begins with a line."""
        number = max(0, self.nearest(first_line))
        top = self.line(number) - first_line
        rows = slice(max(0, -top), max(0, min(MARK_PX, len(into) - top)))
        squares = np.arange(MARK_PX) // _SQUARE_PX
        mark = ((squares[rows, None] + squares) % 2 * 255).astype(np.uint8)
        place = into[max(0, top) : max(0, top + MARK_PX), self.left : self.left + MARK_PX]
        place[...] = mark if into.ndim == 2 else mark[..., None]


class Encoder(NamedTuple):
    """Counts of a web whose speed goes up and down, and which wrap on the way.

    Attributes:
        period: Lines from one highest speed to the next.
        start: Count of line 0.
    """

    period: int
    start: int

    @classmethod
    def wrapping_at(cls, line: int, period: int) -> "Encoder":
        """One whose counter wraps about a line: before or after it by as much as the speed swings."""
        return cls(period, (1 << COUNTER_BITS) - COUNTS_PER_LINE * line)

    def travel(self, line: int) -> int:
        """Counts from line 0 to a line."""
        swing = _SWING * COUNTS_PER_LINE * self.period / (2 * math.pi)
        return COUNTS_PER_LINE * line + round(swing * math.sin(2 * math.pi * (line % self.period) / self.period))

    def count(self, line: int) -> int:
        """What the counter says at a line."""
        return (self.start + self.travel(line)) % (1 << COUNTER_BITS)


class EndlessWeb(MemorySource):
    """Lines over and over, with marks and encoder counts; remembers when each block was sent.

    Args:
        lines: uint8 (n, width[, 3]), see `there_and_back`.
        marks: Drawn on them.
        encoder: Of the web.
        line_rate: Lines per second.
        block_lines: Lines of a block; divides `total`.
        total: Lines after which it ends.

    Attributes:
        camera_times_ns: int64 (blocks,), the camera's clock at the last line of each block.
        arrival_times_ns: int64 (blocks,), `time.monotonic_ns()` there.
    """

    def __init__(
        self, lines: Lines, marks: Marks, encoder: Encoder, *, line_rate: float, block_lines: int, total: int
    ) -> None:
        super().__init__(lines, line_rate=line_rate, block_lines=block_lines, total=total)
        self.marks = marks
        self.encoder = encoder
        self.camera_times_ns = np.full(total // block_lines, -1, np.int64)
        self.arrival_times_ns = np.full(total // block_lines, -1, np.int64)

    def read(self, into: Lines, timeout_s: float) -> BlockInfo:
        """See `Source`."""
        info = super().read(into, timeout_s)
        if info.status is not Status.OK:
            return info
        block = info.first_line // self.block_lines
        self.camera_times_ns[block] = info.camera_time_ns
        self.arrival_times_ns[block] = info.arrival_time_ns
        counts = self.encoder.count(info.first_line), self.encoder.count(info.first_line + info.lines)
        return info._replace(encoder=counts[0], encoder_end=counts[1])

    def lateness_lines(self) -> npt.NDArray[np.float64]:
        """float64 (blocks,): by how many lines the camera's clock was ahead of each block's last line; NaN if not sent."""
        ends = np.arange(1, len(self.camera_times_ns) + 1) * self.block_lines
        ahead = self.camera_times_ns * (self.line_rate or 0.0) / 1e9 - ends
        return np.where(self.camera_times_ns < 0, np.nan, ahead)

    def _fill(self, into: Lines, first_line: int) -> None:
        super()._fill(into, first_line)
        self.marks.draw(into, first_line)
