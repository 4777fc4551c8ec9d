"""Where lines lie along the web: which of them show new web, and at how many millimetres.

*Camera lines* count what the camera sent. *Web lines* count lines of new web: those of backward travel, and those that
cover once more what was seen before, have no number of their own. Three ways to know them:

- Without an encoder the web is taken to run evenly: web lines are camera lines, each a line pitch long.
- The encoder triggers the lines, one every so many counts: a web line is a place on that grid, whatever happened before.
- The camera runs free while the web's speed varies: lines are numbered as they come, and their positions lie between the
  counts of the blocks around them.

All sums are of integers, so that nothing drifts however long the web is.
"""

from bisect import bisect_right
from typing import NamedTuple

from flawline.runtime.cameras.source import BlockInfo
from flawline.runtime.errors import InputError

COUNTER_BITS = 32
"""Encoder counts wrap at this many bits; wider ones are taken as they are, as long as they move by less than half of it."""

ANCHORS = 8192
"""Changes of speed that are remembered."""

FASTEST_COUNTS_PER_LINE = 1024
"""Movement from one line of a free running camera to the next that is still believed."""

JITTER_LINES = 8
"""So many lines the counts at the end of a block and at the beginning of the next may lie apart."""


class Stretch(NamedTuple):
    """The part of a block that is new web.

    Attributes:
        rows: Rows of the block, one or more.
        first_line: Web line of the first of them; the others follow one by one.
    """

    rows: slice
    first_line: int


class Missing(NamedTuple):
    """Web that no line shows.

    Attributes:
        first_line: Web line of the first.
        lines: How many, at least 1.
    """

    first_line: int
    lines: int


class Odometer:
    """Turns blocks into stretches of new web.

    With an encoder, web lines and millimetres begin with 0 at the first line that comes. Without one they begin with camera line 0.

    A count that no believable movement explains (`counts_per_line`, `fastest_counts_per_line`) is a fault: that block is placed
    as if the web had gone on at its last speed. When the counts go on from where they jumped to, the counter was set
    anew, and the web goes on without a seam.

    Args:
        mm_per_line: Line pitch, for a web without an encoder.
        mm_per_count: Millimetres per count of an encoder that counts up as the web runs forwards.
        counts_per_line: Counts per line where the encoder triggers the lines; None where the camera runs free.
        fastest_counts_per_line: Of a free running camera: more counts from line to line than this are not believed.

    Attributes:
        next_line: Web line of the next new web; None before the first block.
        reversed_lines: Lines of backward travel.
        repeated_lines: Lines of forward travel, or of a web that stands, that show what was seen before.
        missing_lines: Web lines that were skipped because no camera line shows them.
        encoder_faults: Blocks whose counts were not believed.
        encoder_resets: Times that the counter was found set anew.

    Raises:
        InputError: Neither or both pitches are given, or a number is not positive.
    """

    def __init__(
        self,
        *,
        mm_per_line: float | None = None,
        mm_per_count: float | None = None,
        counts_per_line: int | None = None,
        fastest_counts_per_line: int = FASTEST_COUNTS_PER_LINE,
    ) -> None:
        if (mm_per_line is None) == (mm_per_count is None):
            raise InputError(
                "the odometer needs millimetres per line or millimetres per encoder count; expected one of them"
            )
        if mm_per_count is None and counts_per_line is not None:
            raise InputError("counts per line without millimetres per encoder count; expected both")
        for name, value in (
            ("millimetres per line", mm_per_line),
            ("millimetres per encoder count", mm_per_count),
            ("encoder counts per line", counts_per_line),
            ("fastest encoder counts per line", fastest_counts_per_line),
        ):
            if value is not None and not 0 < value < 1e9:
                raise InputError(f"{name} are {value}; expected a number above 0 and below 1e9")
        self._mm_per_line = mm_per_line
        self._mm_per_count = mm_per_count
        self._counts_per_line = counts_per_line
        self._fastest = fastest_counts_per_line if counts_per_line is None else 2 * counts_per_line
        self._next_camera_line: int | None = None
        self._counter = _Counter(self._fastest, counts_per_line)
        self._front = 0  # count behind the last new web
        self._at_front = False  # whether the last line that came was new web
        self._lost_lines = 0  # camera lines that were lost since there was new web
        self._anchors = _Anchors()
        self.next_line: int | None = None
        self.reversed_lines = 0
        self.repeated_lines = 0
        self.missing_lines = 0

    @property
    def has_encoder(self) -> bool:
        """Whether positions come from an encoder."""
        return self._mm_per_count is not None

    @property
    def encoder_faults(self) -> int:
        """See the class."""
        return self._counter.faults

    @property
    def encoder_resets(self) -> int:
        """See the class."""
        return self._counter.resets

    def locate(self, info: BlockInfo) -> Stretch | None:
        """Takes the next block whose lines are there.

        Args:
            info: Its numbers; camera lines between it and the last one are lost.

        Returns:
            What of it is new web; None if nothing is, or if its camera lines had been seen before.

        Raises:
            InputError: There should be an encoder, and the first block has no count.
        """
        expected = info.first_line if self._next_camera_line is None else self._next_camera_line
        if info.first_line < expected or info.lines < 1:
            return None
        self._next_camera_line = info.first_line + info.lines
        lost_lines = info.first_line - expected
        if self._mm_per_count is None:
            self.missing_lines += lost_lines
            self.next_line = self._next_camera_line
            return Stretch(slice(0, info.lines), info.first_line)
        begin, end = self._counter.advance(info, lost_lines)
        self._lost_lines += lost_lines
        if end <= begin:
            self._not_forward(info.lines, begin, end)
            return None
        return self._forward(info.lines, begin, end)

    def lost(self, first_line: int, lines: int) -> Missing | None:
        """What lost lines most likely were of the web. With an encoder the next block tells for certain.

        Args:
            first_line: Camera line of the first lost line, behind the last block.
            lines: Number of lost lines.

        Returns:
            The web lines that they would have been had the web gone on as it did since that block; None if those were seen
            before.
        """
        if self._mm_per_count is None:
            return Missing(first_line, lines)
        if not self._at_front or self.next_line is None or self._next_camera_line is None:
            return None
        return Missing(self.next_line + first_line - self._next_camera_line, lines)

    def millimetres(self, web_line: float) -> float:
        """Position of the beginning of a web line.

        Args:
            web_line: Its number; fractions lie within a line.

        Returns:
            Millimetres along the web. For a free running camera, lines before the last `ANCHORS` changes of speed are
            placed by the speed at the oldest of them, and lines to come by the last one.
        """
        if self._mm_per_count is None:
            return web_line * (self._mm_per_line or 0.0)
        if self._counts_per_line is not None:
            return web_line * self._counts_per_line * self._mm_per_count
        return self._anchors.count(web_line) * self._mm_per_count

    def _not_forward(self, lines: int, begin: int, end: int) -> None:
        if end < begin:
            self.reversed_lines += lines
        else:
            self.repeated_lines += lines
        self._at_front = False
        if self.next_line is None:
            # Nothing was inspected yet: what passes backwards now is new when it comes again.
            self._front = end

    def _forward(self, lines: int, begin: int, end: int) -> Stretch | None:
        if self.next_line is None:
            self._counter.shift(-self._front)
            begin, end, self._front = begin - self._front, end - self._front, 0
            self.next_line = 0
        travel = end - begin
        # Within a line of the front, a block right behind another one goes on, whatever the encoder's jitter.
        goes_on = self._at_front and not self._lost_lines and abs(begin - self._front) * lines <= travel
        # The row that begins nearest to the front, of which it may miss half a line.
        seen = 0 if goes_on else max(0, -(-(2 * (self._front - begin) * lines - travel) // (2 * travel)))
        if seen >= lines:
            self.repeated_lines += lines
            self._at_front = False
            return None
        self.repeated_lines += seen
        first = self._front if goes_on else begin + seen * travel // lines
        skipped = 0 if goes_on else self._skipped(first, lines, travel)
        self.missing_lines += skipped
        line = self.next_line + skipped
        if self._counts_per_line is None:
            self._anchors.add(line, max(first, self._front))
            self._anchors.add(line + lines - seen, max(end, self._front))
        self.next_line = line + lines - seen
        # On the grid of a triggered camera lines decide, so that counts and lines never part for good.
        grid = None if self._counts_per_line is None else self.next_line * self._counts_per_line
        self._front = max(end, self._front) if grid is None else grid
        self._at_front = True
        self._lost_lines = 0
        return Stretch(slice(seen, lines), line)

    def _skipped(self, first: int, lines: int, travel: int) -> int:
        """Web lines between the front and the count at which new web begins again."""
        if self.next_line is None:
            return 0
        if self._counts_per_line is not None:
            nearest = -(-(2 * first - self._counts_per_line) // (2 * self._counts_per_line))
            return max(0, nearest - self.next_line)
        # Half a line is as good as none. Lines that the camera did not lose are not missing, however far they lie apart.
        if not self._lost_lines or 2 * (first - self._front) * lines <= travel:
            return 0
        if self._at_front:
            return self._lost_lines
        return min(self._lost_lines, -(-(first - self._front) * lines // travel))


class _Counter:
    """Unwraps the encoder's counts and believes only what can be."""

    def __init__(self, fastest: int, counts_per_line: int | None) -> None:
        self._fastest = fastest
        self._pace = (counts_per_line or 0, 1)  # counts and lines of the last block that was believed
        self._end = 0  # unwrapped count behind the last block
        self._raw_end: int | None = None  # the encoder's word for it
        self._other_raw_end: int | None = None  # where the encoder went that was not believed
        self._guessed_lines = 0  # since the last count that was believed
        self.faults = 0
        self.resets = 0

    def shift(self, counts: int) -> None:
        """Moves the zero of all counts."""
        self._end += counts

    def advance(self, info: BlockInfo, lost_lines: int) -> tuple[int, int]:
        """Unwrapped counts at the beginning and behind the end of a block."""
        if info.encoder is None or info.encoder_end is None:
            if self._raw_end is None:
                raise InputError(
                    f"line {info.first_line} has no encoder count; expected one: give millimetres per line instead, or "
                    "switch the encoder of the camera on"
                )
            return self._guess(info, lost_lines)
        travel = _difference(info.encoder_end, info.encoder)
        reach = (lost_lines + self._guessed_lines + JITTER_LINES) * self._fastest
        if self._raw_end is None:
            self._raw_end = info.encoder
        if abs(travel) > info.lines * self._fastest:
            return self._guess(info, lost_lines)
        jump = _difference(info.encoder, self._raw_end)
        if abs(jump) > reach:
            if self._other_raw_end is None or abs(_difference(info.encoder, self._other_raw_end)) > reach:
                return self._guess(info, lost_lines)
            jump = self._travel(lost_lines)
            self.resets += 1
        begin = self._end + jump
        self._end, self._raw_end, self._other_raw_end = begin + travel, info.encoder_end, None
        self._pace = travel, info.lines
        self._guessed_lines = 0
        return begin, self._end

    def _guess(self, info: BlockInfo, lost_lines: int) -> tuple[int, int]:
        """Goes on at the last speed, and remembers where the encoder went."""
        self.faults += 1
        begin = self._end + self._travel(lost_lines)
        end = begin + self._travel(info.lines)
        if self._raw_end is not None:
            self._raw_end += end - self._end
        self._end = end
        self._guessed_lines += lost_lines + info.lines
        self._other_raw_end = info.encoder_end
        return begin, end

    def _travel(self, lines: int) -> int:
        counts, of_lines = self._pace
        return counts * lines // of_lines


class _Anchors:
    """Counts at web lines, in order; between them the web runs evenly. Those on a straight line are not kept."""

    def __init__(self) -> None:
        self._lines: list[int] = []
        self._counts: list[int] = []

    def add(self, line: int, count: int) -> None:
        lines, counts = self._lines, self._counts
        if lines and lines[-1] == line:
            return
        if len(lines) > 1 and (count - counts[-1]) * (lines[-1] - lines[-2]) == (counts[-1] - counts[-2]) * (
            line - lines[-1]
        ):
            lines.pop()
            counts.pop()
        lines.append(line)
        counts.append(count)
        if len(lines) > 2 * ANCHORS:
            del lines[:ANCHORS], counts[:ANCHORS]

    def count(self, line: float) -> float:
        """Count at a line, which may lie between two or beyond the ends."""
        if len(self._lines) < 2:
            return 0.0
        right = min(max(bisect_right(self._lines, line), 1), len(self._lines) - 1)
        line0, line1 = self._lines[right - 1 : right + 1]
        count0, count1 = self._counts[right - 1 : right + 1]
        return count0 + (line - line0) * (count1 - count0) / (line1 - line0)


def _difference(count: int, earlier: int) -> int:
    """Signed distance between two counts of a counter that wraps."""
    half = 1 << (COUNTER_BITS - 1)
    return (count - earlier + half) % (2 * half) - half
