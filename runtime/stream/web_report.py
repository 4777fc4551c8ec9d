"""Turns what happens on an endless web into events for the sinks, and keeps the account."""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from flawline.runtime.cameras.source import Loss, Source
from flawline.runtime.errors import FlawlineError
from flawline.runtime.events import Defect, Ending, Gap, Summary
from flawline.runtime.histogram import Histogram
from flawline.runtime.stream.account import Account
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.pictures import PictureWriter
from flawline.runtime.stream.ring import Ring
from flawline.runtime.stream.sinks import DefectSink
from flawline.runtime.stream.wander import EdgeWander
from flawline.runtime.web.inspector import InspectedStrip
from flawline.runtime.web.odometer import Missing


class WebReport:
    """Everything that the stream of a web has to say.

    Args:
        sinks: Where events go. One that cannot take an event neither stops the stream nor the other sinks.
        map_stride: Lines per row of the anomaly map.
        millimetres: Position of the beginning of a web line, if known.
        pixel_mm: Distance of neighbouring pixels, if known.
        edges: Whether the edges of the web are measured.
        pictures: Writes thumbnails, if wanted; closed by `close`.
        progress: Called with the number of lines that came since the last call.
    """

    def __init__(
        self,
        sinks: Sequence[DefectSink],
        map_stride: int,
        *,
        millimetres: Callable[[float], float] | None = None,
        pixel_mm: float | None = None,
        edges: bool = False,
        pictures: PictureWriter | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self._account = Account(sinks, pictures, progress)
        self._map_stride = map_stride
        self._millimetres = millimetres
        self._pixel_mm = pixel_mm
        self._measures_edges = edges
        self._left, self._right = EdgeWander(), EdgeWander()
        self._strips = self._bad_strips = self._late = self._masked_rows = self._flagged_rows = 0
        self._gaps = self._gap_lines = 0
        self._gap_mm = 0.0
        self._gap_end: int | None = None  # behind the last gap, while nothing has been scored since
        self._defect_latency = Histogram()

    def received(self, lines: int) -> None:
        """Counts camera lines that came."""
        self._account.received(lines)

    def loss(self, loss: Loss, first_line: int, lines: int) -> None:
        """Reports lost lines.

        Args:
            loss: Camera lines.
            first_line: Web line of the first.
            lines: How many web lines they would have been; 0 if they had shown nothing new.
        """
        self._gap(loss.first_line, dict(loss.reasons), loss.detail, first_line, lines)

    def unseen(self, missing: Missing, camera_line: int) -> None:
        """Reports web that no line shows although no line was lost here: the encoder says that it went by.

        Args:
            missing: The web lines.
            camera_line: The first line that came behind them.
        """
        self._gap(camera_line, {}, "the encoder ran on without lines", missing.first_line, missing.lines)

    def bad_strip(self, first_line: int, lines: int, error: FlawlineError) -> None:
        """Reports a strip that the detector could not score.

        Args:
            first_line: Web line of its first line.
            lines: How many.
            error: Why.
        """
        self._bad_strips += 1
        self._gap(first_line, {"bad_strip": lines}, str(error), first_line, lines)

    def defect(self, defect: Defect) -> None:
        """Tells a defect."""
        self._account.defects += 1
        self._late += defect.late is True
        self._defect_latency.add(round(defect.latency_ms * 1e6))
        self._account.emit(defect)

    def strip(
        self,
        strip: InspectedStrip,
        *,
        rejected: bool,
        arrival_time_ns: int,
        complete_time_ns: int,
        label_ns: int,
    ) -> None:
        """Accounts for a strip whose defects are out.

        Args:
            strip: What was inspected.
            rejected: Whether its rows have a value above the threshold.
            arrival_time_ns: `time.monotonic_ns()` when its last line was here.
            complete_time_ns: When the last line of its context was here.
            label_ns: Nanoseconds that labelling took.
        """
        done_ns = time.monotonic_ns()
        self._gap_end = None
        self._strips += 1
        self._account.rejects += rejected
        self._account.lines_scored += len(strip.left)
        self._masked_rows += len(strip.rows.mask) - int(np.count_nonzero(strip.rows.mask.any(axis=1)))
        if self._measures_edges:
            self._left.add(strip.left)
            self._right.add(strip.right)
        self._flagged_rows += int(np.count_nonzero(strip.rows.flagged))
        self._account.latency.add(done_ns - arrival_time_ns)
        stages = {**strip.timings_ns, "label": label_ns}
        self._account.time(
            {
                "context": complete_time_ns - arrival_time_ns,
                "wait": strip.start_ns - complete_time_ns,
                **stages,
                "sinks": max(0, done_ns - strip.start_ns - sum(stages.values())),
            }
        )

    def close(self) -> None:
        """Waits for the pictures."""
        self._account.close()

    def summary(
        self,
        ended: Ending,
        source: Source,
        acquisition: Acquisition,
        ring: Ring,
        counters: Mapping[str, int] | None = None,
        troubles: Sequence[str] = (),
        suppressed: int = 0,
    ) -> Summary:
        """Gives the account and tells it to the sinks, once everything else has come to rest.

        Args:
            ended: Why the stream is over.
            source: What was streamed.
            acquisition: Who read it.
            ring: Where its blocks waited.
            counters: More counters to be told with the source's, such as the odometer's.
            troubles: More explanations of failures.
            suppressed: Defects that were not reported, since there were too many in a strip.
        """
        summary = self._account.summary(ended, source, acquisition, ring)
        summary = msgspec.structs.replace(
            summary,
            strips=self._strips,
            bad_strips=self._bad_strips,
            late_defects=self._late,
            suppressed_defects=suppressed,
            lines_masked=self._masked_rows * self._map_stride,
            lines_flagged=self._flagged_rows * self._map_stride,
            gaps=self._gaps,
            gap_lines=self._gap_lines,
            gap_mm=None if self._millimetres is None else self._gap_mm,
            left_edge=self._left.measured(self._pixel_mm),
            right_edge=self._right.measured(self._pixel_mm),
            defect_latency_ms=self._defect_latency.percentiles(),
            stage_shares=self._account.stage_shares(),
            source_counters={**summary.source_counters, **(counters or {})},
            troubles=[*summary.troubles, *troubles],
        )
        self._account.emit(summary)
        return summary

    def _gap(self, camera_line: int, reasons: dict[str, int], detail: str, first_line: int, lines: int) -> None:
        first_mm = length_mm = None
        if self._millimetres is not None:
            first_mm = self._millimetres(first_line)
            length_mm = self._millimetres(first_line + lines) - first_mm
            self._gap_mm += length_mm
        if lines:
            # An outage may be told in parts.
            self._gaps += self._gap_end is None or first_line > self._gap_end
            self._gap_lines += lines
            self._gap_end = first_line + lines
        self._account.emit(
            Gap(
                first_line=camera_line,
                lines=sum(reasons.values()),
                reasons=reasons,
                unscored_first_line=first_line,
                unscored_lines=lines,
                first_mm=first_mm,
                length_mm=length_mm,
                detail=detail,
            )
        )
