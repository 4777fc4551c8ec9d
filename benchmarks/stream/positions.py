"""Whether marks are found where they are, from the first to the last."""

from typing import NamedTuple

import numpy as np

from flawline.benchmarks.stream.endless import MARK_PX, EndlessWeb
from flawline.runtime.events import Point
from flawline.runtime.stream import Defect, Event

_REACH_PX = 256  # what a mark makes of the map around it, at most


class Found(NamedTuple):
    """A mark that was reported.

    Attributes:
        number: Which.
        lines: Reported first line less its own: what the detector adds.
        peak_lines: Line of the highest score less the mark's first.
        mm: Reported position less that of the reported first line by the encoder, millimetres.
        peak: Its score.
        clock_is_its_own: Whether the reported time is that of the block with its last line.
    """

    number: int
    lines: int
    peak_lines: int
    mm: float
    peak: float
    clock_is_its_own: bool


class Drift(NamedTuple):
    """How positions of the marks differ over the run; what a detector adds to each alike is none.

    Attributes:
        marks: Marks that were sent with their context.
        missed: Those of them that were not reported.
        lines: Largest less smallest distance between reported and true line.
        last_lines: That of the last mark less that of the first.
        mm: Largest less smallest distance between reported and true position, millimetres.
        peak_ratio: Largest over smallest score.
        wrong_clocks: Marks that were not told with the time of their last line's block.
    """

    marks: int
    missed: int
    lines: int
    last_lines: int
    mm: float
    peak_ratio: float
    wrong_clocks: int


class MarkSink:
    """Keeps what is reported of the marks.

    Args:
        web: Where they are drawn.
        mm_per_count: Of its encoder.
    """

    def __init__(self, web: EndlessWeb, mm_per_count: float) -> None:
        self._web = web
        self._mm_per_count = mm_per_count
        self._found: dict[int, Found] = {}

    def emit(self, event: Event) -> None:
        """See `DefectSink`."""
        if not isinstance(event, Defect) or not isinstance(event.peak_at, Point) or event.box_mm is None:
            return
        marks, last_line = self._web.marks, event.box.y + event.box.height - 1
        x, y = event.peak_at.x, event.peak_at.y
        number = marks.nearest(y)
        line = marks.line(number)
        if abs(x - marks.left - MARK_PX / 2) > _REACH_PX or abs(y - line - MARK_PX / 2) > marks.period / 2:
            return
        if number in self._found and self._found[number].peak >= event.peak:
            return
        true_mm = self._web.encoder.travel(event.first_line) * self._mm_per_count
        block = last_line // self._web.block_lines
        self._found[number] = Found(
            number,
            event.first_line - line,
            y - line,
            event.box_mm.y - true_mm,
            event.peak,
            event.camera_time_ns == self._web.camera_times_ns[block],
        )

    def close(self) -> None:
        """See `DefectSink`."""

    def drift(self, lines: int) -> Drift:
        """Compares the marks that begin on the first `lines` lines; at least one must have been found to tell a drift."""
        marks = self._web.marks.count(lines)
        found = [self._found[number] for number in range(marks) if number in self._found]
        if not found:
            return Drift(marks, marks, 0, 0, 0.0, 1.0, 0)
        by = [each.lines for each in found]
        peaks = [each.peak_lines for each in found]
        return Drift(
            marks=marks,
            missed=marks - len(found),
            lines=max(int(np.ptp(by)), int(np.ptp(peaks))),
            last_lines=by[-1] - by[0],
            mm=float(np.ptp([each.mm for each in found])),
            peak_ratio=max(each.peak for each in found) / min(each.peak for each in found),
            wrong_clocks=sum(not each.clock_is_its_own for each in found),
        )
