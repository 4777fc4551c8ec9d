"""What a process takes while a web is streamed, interval by interval: memory, processor, what waits, latency."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flawline.benchmarks.stream.endless import EndlessWeb
from flawline.runtime.errors import InputError
from flawline.runtime.histogram import Histogram, Percentiles
from flawline.runtime.stream import Event, Gap

_STATUS = Path("/proc/self/status")


class Interval(NamedTuple):
    """A part of the run.

    Attributes:
        minutes: Length of web until its end, minutes at the line rate.
        lines_lost: Lines that were lost in it.
        rss_kb: Largest resident memory of the process that was seen in it, KiB.
        peak_kb: Largest that it ever had (VmHWM), KiB.
        ring_peak_lines: Most lines that waited for the detector.
        latency_ms: From the arrival of a strip's last line to its verdict; None if no strip ended in it.
        cpu_cores: Processor time of all threads over time.
    """

    minutes: float
    lines_lost: int
    rss_kb: int
    peak_kb: int
    ring_peak_lines: int
    latency_ms: Percentiles | None
    cpu_cores: float


class Growth(NamedTuple):
    """Of resident memory behind the warm-up, which is the first tenth of the intervals.

    Attributes:
        warm_kb: In the warm-up's last interval, KiB.
        largest_kb: Largest later on less that, KiB.
        kb_per_minute: Slope of the line through the later intervals, KiB per minute (least squares).
    """

    warm_kb: int
    largest_kb: int
    kb_per_minute: float

    @classmethod
    def of(cls, intervals: list[Interval]) -> "Growth":
        """That of a run of at least one interval; none where no two are left behind the warm-up."""
        warm = max(1, len(intervals) // 10)
        warm_kb, later = intervals[warm - 1].rss_kb, intervals[warm:]
        if len(later) < 2:
            return cls(warm_kb, 0, 0.0)
        slope = np.polyfit([each.minutes for each in later], [each.rss_kb for each in later], 1)[0]
        return cls(warm_kb, max(each.rss_kb for each in later) - warm_kb, float(slope))


class Monitor:
    """Watches a stream from the detector's thread; a sink as well, since losses are events.

    Args:
        web: What is streamed.
        lines: Lines of an interval.
        ring_lines: Lines that can wait: of more, the rest is lost, and not yet told.
        tell: Called with each interval.

    Attributes:
        intervals: Those that are over.
    """

    def __init__(self, web: EndlessWeb, lines: int, ring_lines: int, tell: Callable[[Interval], object]) -> None:
        self._web = web
        self._lines = lines
        self._ring_lines = ring_lines
        self._tell = tell
        self._received = self._told_lines = 0
        self._lost: Counter[str] = Counter()
        self._rss_kb = self._waiting = self._lost_before = 0
        self.intervals: list[Interval] = []
        self._begin()

    def block(self, lines: int) -> None:
        """Takes note of lines that came to the detector."""
        self._received += lines
        passed = self._received + self._lost.total()
        self._waiting = max(self._waiting, min(self._ring_lines, self._web.counters["lines_sent"] - passed))
        if passed >= self._told_lines // self._lines * self._lines + self._lines:
            self.end()

    def strip(self, end: int) -> None:
        """Takes note of a strip whose verdict is out.

        Args:
            end: Camera line behind its last.
        """
        now_ns = time.monotonic_ns()
        self._latency.add(now_ns - int(self._web.arrival_times_ns[(end - 1) // self._web.block_lines]))
        self._rss_kb = max(self._rss_kb, resident_kb()[0])

    def emit(self, event: Event) -> None:
        """See `DefectSink`."""
        if isinstance(event, Gap):
            self._lost.update(event.reasons)

    def close(self) -> None:
        """See `DefectSink`."""

    def end(self) -> None:
        """Ends an interval and begins the next; does nothing if no line has passed since the last."""
        passed, lost = self._received + self._lost.total(), self._lost.total()
        if passed == self._told_lines:
            return
        rss_kb, peak_kb = resident_kb()
        seconds = (time.monotonic_ns() - self._start_ns) / 1e9
        interval = Interval(
            minutes=passed / (self._web.line_rate or 1.0) / 60,
            lines_lost=lost - self._lost_before,
            rss_kb=max(self._rss_kb, rss_kb),
            peak_kb=peak_kb,
            ring_peak_lines=self._waiting,
            latency_ms=self._latency.percentiles(),
            cpu_cores=(time.process_time() - self._start_cpu_s) / seconds,
        )
        self.intervals.append(interval)
        self._tell(interval)
        self._told_lines = passed
        self._begin()

    def _begin(self) -> None:
        self._latency = Histogram()
        self._rss_kb = self._waiting = 0
        self._lost_before = self._lost.total()
        self._start_ns, self._start_cpu_s = time.monotonic_ns(), time.process_time()


def resident_kb() -> tuple[int, int]:
    """Resident memory of this process now and its peak so far, KiB.

    Raises:
        InputError: The system does not tell.
    """
    try:
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmRSS"].split()[0]), int(fields["VmHWM"].split()[0])
    except (OSError, KeyError) as error:
        raise InputError(f"{_STATUS} does not tell the memory of this process; expected Linux") from error
