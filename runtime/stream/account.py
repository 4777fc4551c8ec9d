"""The account of a stream that every mode keeps: lines, times and deliveries."""

import time
from collections.abc import Callable, Mapping, Sequence

from flawline.runtime.cameras.source import Source
from flawline.runtime.events import Ending, Event, Pictures, Summary
from flawline.runtime.histogram import Histogram, Percentiles
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.pictures import PictureWriter
from flawline.runtime.stream.ring import Ring
from flawline.runtime.stream.sinks import DefectSink


class Account:
    """Delivers events and counts what every stream counts.

    Args:
        sinks: Where events go. One that cannot take an event neither stops the stream nor the other sinks.
        pictures: Writes pictures, if wanted.
        progress: Called with the number of lines that came since the last call.

    Attributes:
        rejects: What was rejected: frames, or strips.
        defects: Defects that were reported.
        lines_scored: Lines that the detector scored.
        latency: From the arrival of the last line of a frame or strip until its verdict and defects were out.
    """

    def __init__(
        self,
        sinks: Sequence[DefectSink],
        pictures: PictureWriter | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self._sinks = sinks
        self._pictures = pictures
        self._progress = progress
        self._start_ns = time.monotonic_ns()
        self._received = 0
        self._stages: dict[str, Histogram] = {}
        self._stages_ns: dict[str, int] = {}
        self._events_failed = 0
        self._sink_error = ""
        self._picture_counts = Pictures()
        self.rejects = self.defects = self.lines_scored = 0
        self.latency = Histogram()

    def received(self, lines: int) -> None:
        """Counts lines that came."""
        self._received += lines
        if self._progress is not None:
            self._progress(lines)

    def time(self, timings_ns: Mapping[str, int]) -> None:
        """Adds what the stages of a frame or strip took, nanoseconds."""
        for stage, time_ns in timings_ns.items():
            if stage not in self._stages:
                self._stages[stage] = Histogram()
                self._stages_ns[stage] = 0
            self._stages[stage].add(time_ns)
            self._stages_ns[stage] += time_ns

    def emit(self, event: Event) -> None:
        """Tells an event to all sinks."""
        for sink in self._sinks:
            try:
                sink.emit(event)
            except BrokenPipeError:
                raise
            except OSError as error:
                self._events_failed += 1
                self._sink_error = f"an event could not be delivered: {error}"

    def close(self) -> None:
        """Waits for the pictures."""
        if self._pictures is not None:
            self._picture_counts = self._pictures.close()

    def stage_shares(self) -> dict[str, float]:
        """The share of each stage in the time of all of them, between 0 and 1."""
        total = sum(self._stages_ns.values())
        return {stage: time_ns / total for stage, time_ns in self._stages_ns.items()} if total else {}

    def summary(self, ended: Ending, source: Source, acquisition: Acquisition, ring: Ring) -> Summary:
        """Gives what all modes have in common, once everything else has come to rest."""
        troubles = [self._sink_error, self._pictures.error if self._pictures is not None else ""]
        return Summary(
            source=source.spec,
            ended=ended,
            seconds=(time.monotonic_ns() - self._start_ns) / 1e9,
            rejects=self.rejects,
            defects=self.defects,
            lines_sent=acquisition.lines_sent,
            lines_received=self._received,
            lines_scored=self.lines_scored,
            lines_lost=dict(ring.lost),
            source_counters={
                **source.counters,
                "timeouts": acquisition.timeouts,
                "repeated_blocks": acquisition.repeated_blocks,
            },
            policy=ring.policy,
            ring_blocks=ring.capacity,
            ring_peak_blocks=ring.peak_blocks,
            pictures=self._picture_counts,
            events_failed=self._events_failed,
            troubles=[trouble for trouble in troubles if trouble],
            latency_ms=self.latency.percentiles(),
            stages_ms=self._stage_percentiles(),
            line_rate_asked=source.line_rate,
            line_rate_held=acquisition.line_rate,
        )

    def _stage_percentiles(self) -> dict[str, Percentiles]:
        stages = ((name, histogram.percentiles()) for name, histogram in self._stages.items())
        return {name: percentiles for name, percentiles in stages if percentiles is not None}
