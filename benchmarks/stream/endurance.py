"""A web for hours through the whole stream, with everything that is written: whether memory stays flat and positions true."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flawline.benchmarks.stream.endless import (
    COUNTS_PER_LINE,
    MARK_PX,
    Encoder,
    EndlessWeb,
    Lines,
    Marks,
    there_and_back,
)
from flawline.benchmarks.stream.faults import WEBS, HoardingSink
from flawline.benchmarks.stream.monitor import Growth, Interval, Monitor
from flawline.benchmarks.stream.positions import Drift, MarkSink
from flawline.benchmarks.stream.search import one_tile
from flawline.runtime.bundle import Bundle
from flawline.runtime.commands.web_options import MAX_DEFECT_LINES, MAX_STRIP_DEFECTS
from flawline.runtime.errors import InputError
from flawline.runtime.stream import JsonLinesSink, PictureWriter, Summary
from flawline.runtime.stream.sinks import DefectSink
from flawline.runtime.stream.web_pipeline import WebStream
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.inspector import InspectedStrip, WebInspector
from flawline.runtime.web.odometer import Odometer
from flawline.runtime.web.recorder import Recorder, room_for

INTERVALS = 60
FEWEST_INTERVALS = 20
LEAST_MARKS = 3

MOST_LINES = 0
MOST_LINE_PITCHES = 0.01
MOST_PEAK_CHANGE = 1e-3  # below that of a mark that moves by a line against the map's rows
MOST_GROWTH_KB = 8192

_LINE_MM = 0.1  # where the bundle knows no pitch


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        line_rate: Lines per second.
        minutes: How long.
        strip_lines: Height of a strip.
        mark_s: Seconds between marks; rounded to whole repetitions of the image.
        ring_s: Seconds of lines that the ring holds.
        fault: What goes wrong, see `FAULTS`; None for nothing.
    """

    line_rate: float
    minutes: float
    strip_lines: int
    mark_s: float = 10.0
    ring_s: float = 2.0
    fault: str | None = None

    @property
    def block_lines(self) -> int:
        """Lines of a block: 64, or a part of it that divides a strip."""
        return math.gcd(64, self.strip_lines)

    @property
    def total(self) -> int:
        """Lines of the run."""
        return math.ceil(self.line_rate * self.minutes * 60 / self.block_lines) * self.block_lines


class Endurance(NamedTuple):
    """What a run gave.

    Attributes:
        summary: Account of the stream.
        intervals: Of the run.
        growth: Of memory.
        drift: Of positions.
        clock_drift_lines: Camera's clock times line rate less line number: that of the last tenth of the blocks less that of
            the first, each the smallest, of the block that was least late.
        written_bytes: Of events, pictures and recording.
        block_lines: Lines of a block.
    """

    summary: Summary
    intervals: list[Interval]
    growth: Growth
    drift: Drift
    clock_drift_lines: float
    written_bytes: int
    block_lines: int

    def failures(self, line_mm: float, growth_kb: int) -> list[str]:
        """What is not as it should be, a line each; empty if everything is.

        Args:
            line_mm: Line pitch.
            growth_kb: Most that memory may grow by.
        """
        lost, drift = sum(self.summary.lines_lost.values()), self.drift
        reasons = ", ".join(f"{reason} {lines}" for reason, lines in self.summary.lines_lost.items())
        checks = {
            f"lines were lost: {reasons}": lost > 0,
            f"memory grew by {self.growth.largest_kb} KiB; at most {growth_kb} are allowed": self.growth.largest_kb
            > growth_kb,
            f"{drift.missed} of {drift.marks} marks were not found": drift.missed > 0,
            f"{drift.wrong_clocks} marks were told with another block's time": drift.wrong_clocks > 0,
            f"clock and lines drifted apart by {self.clock_drift_lines:.2f} lines": not abs(self.clock_drift_lines)
            <= self.block_lines,
        }
        if not lost:  # or strips would begin anew, and lie otherwise against the marks
            checks |= {
                f"positions drifted by {drift.lines} lines": drift.lines > MOST_LINES,
                f"positions drifted by {drift.mm:.4f} mm": drift.mm > MOST_LINE_PITCHES * line_mm,
                f"scores of the marks differ by {drift.peak_ratio - 1:.1e}: they moved": drift.peak_ratio - 1
                > MOST_PEAK_CHANGE,
            }
        return [failure for failure, fails in checks.items() if fails]


class _WatchedInspector(WebInspector):
    """Says when a strip's defects are out."""

    told: Callable[[int], object] = staticmethod(int)

    def add(self, lines: Lines, first_line: int) -> Iterator[InspectedStrip]:
        for strip in super().add(lines, first_line):
            yield strip
            self.told(strip.end)

    def cut(self) -> Iterator[InspectedStrip]:
        for strip in super().cut():
            yield strip
            self.told(strip.end)


def line_mm(bundle: Bundle) -> float:
    """Line pitch of a bundle for a web, or one that stands for it, millimetres."""
    web = bundle.manifest.web
    return _LINE_MM if web is None or web.line_mm is None else web.line_mm


def endure(
    bundle: Bundle,
    lines: Lines,
    plan: Plan,
    folder: Path,
    *,
    backend: str,
    threads: int,
    tell: Callable[[Interval], object],
) -> Endurance:
    """Streams a web, and keeps what a plant would: events, pictures of defects and the blocks around them.

    Args:
        bundle: One for a web.
        lines: uint8 (n, width[, 3]), at least a strip.
        plan: The run.
        folder: Empty, for what is written.
        backend: Name of the engine.
        threads: Of engine and kernel.
        tell: Called with each interval as soon as it is over.

    Raises:
        InputError: The run is too short, or the image too small.
    """
    geometry = Geometry.of(bundle.padim).resized(plan.strip_lines)
    web = _web(lines, plan, geometry)
    mm_per_count = line_mm(bundle) / COUNTS_PER_LINE
    web_facts = bundle.manifest.web
    pixel_mm = None if web_facts is None else web_facts.pixel_mm
    seen = MarkSink(web, mm_per_count)
    intervals = min(INTERVALS, plan.total // plan.strip_lines)
    ring_blocks = max(2, math.ceil(plan.line_rate * plan.ring_s / web.block_lines))
    monitor = Monitor(web, plan.total // intervals, ring_blocks * web.block_lines, tell)
    with ExitStack() as stack:
        events = stack.enter_context((folder / "events.jsonl").open("wb"))
        sinks: list[DefectSink] = [JsonLinesSink(events), seen, monitor]
        if plan.fault == "hoard":
            sinks.append(HoardingSink())
        inspector = _WatchedInspector(
            bundle,
            web.width,
            strip_lines=plan.strip_lines,
            tile_px=one_tile(bundle, web.width),
            backend=backend,
            threads=threads,
        )
        inspector.told = monitor.strip
        stack.enter_context(inspector)
        room = room_for(geometry, MAX_DEFECT_LINES, web.block_lines)
        recorder = Recorder(folder / "recording", web, **room._asdict())
        stack.callback(recorder.close)
        summary = WebStream(
            inspector=inspector,
            threshold=bundle.manifest.threshold.score,
            p_value=bundle.p_value,
            sinks=sinks,
            odometer=Odometer(mm_per_count=mm_per_count),
            max_defect_lines=MAX_DEFECT_LINES,
            max_strip_defects=MAX_STRIP_DEFECTS,
            pixel_mm=pixel_mm or line_mm(bundle),
            line_mm=line_mm(bundle),
            recorder=recorder,
            policy="drop-newest",
            ring_blocks=ring_blocks,
            pictures=PictureWriter(thumbnails=folder / "thumbnails"),
            progress=monitor.block,
        ).run(web)
        monitor.end()
    late = web.lateness_lines()
    late = late[~np.isnan(late)]
    tenth = -(-len(late) // 10)
    return Endurance(
        summary=summary,
        intervals=monitor.intervals,
        growth=Growth.of(monitor.intervals),
        drift=seen.drift(plan.total - _context(geometry)),
        clock_drift_lines=float(late[-tenth:].min() - late[:tenth].min()),
        written_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        block_lines=web.block_lines,
    )


def _context(geometry: Geometry) -> int:
    """Lines from the beginning of a mark, and behind it, on which its scores may depend."""
    return MARK_PX + 2 * geometry.halo


def _web(lines: Lines, plan: Plan, geometry: Geometry) -> EndlessWeb:
    if len(lines) < plan.strip_lines or lines.shape[1] < 2 * MARK_PX:
        raise InputError(
            f"the image has {len(lines)} lines of {lines.shape[1]} px; expected {plan.strip_lines} or more, a strip, of "
            f"{2 * MARK_PX} px or more"
        )
    repeated = there_and_back(lines, plan.strip_lines)
    half = len(repeated) // 2
    # In the middle of the lines, far from where they turn; at all marks strips and blocks lie alike.
    first_line = -(-_context(geometry) // half) * half + (half - MARK_PX) // 2
    period = max(1, round(plan.mark_s * plan.line_rate / len(repeated))) * len(repeated)
    marks = Marks(first_line, period, (lines.shape[1] - MARK_PX) // 2)
    fewest = FEWEST_INTERVALS * plan.strip_lines
    if plan.total < fewest or marks.count(plan.total - _context(geometry)) < LEAST_MARKS:
        fewest = max(fewest, first_line + (LEAST_MARKS - 1) * period + _context(geometry) + 1)
        raise InputError(
            f"{plan.total} lines at {plan.line_rate:g} lines/s; expected {fewest / plan.line_rate / 60:.3g} minutes or more, "
            f"for {LEAST_MARKS} marks, {period} lines apart, and {FEWEST_INTERVALS} strips"
        )
    return WEBS.get(plan.fault, EndlessWeb)(
        repeated,
        marks,
        Encoder.wrapping_at(plan.total // 2, len(repeated)),
        line_rate=plan.line_rate,
        block_lines=plan.block_lines,
        total=plan.total,
    )
