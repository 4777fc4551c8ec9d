"""Turns what happens on the stream into events for the sinks, and keeps the account."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

import msgspec
from msgspec import UNSET

from flawline.runtime.cameras.source import Loss, Source
from flawline.runtime.detector import Result
from flawline.runtime.errors import FlawlineError
from flawline.runtime.events import Box, Defect, Ending, Gap, Pitch, Summary
from flawline.runtime.regions import Region
from flawline.runtime.stream.account import Account
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.assembler import Assembler, Frame, GridAssembler, Unscored
from flawline.runtime.stream.pictures import PictureWriter
from flawline.runtime.stream.ring import Ring
from flawline.runtime.stream.sinks import DefectSink


class Report:
    """Everything that one stream has to say.

    Args:
        sinks: Where events go. One that cannot take an event neither stops the stream nor the other sinks.
        assembler: What makes the frames.
        pitch: Millimetres per pixel, if known.
        pictures: Writes thumbnails and overlays, if wanted.
        progress: Called with the number of lines that came since the last call.
    """

    def __init__(
        self,
        sinks: Sequence[DefectSink],
        assembler: Assembler,
        *,
        pitch: Pitch | None = None,
        pictures: PictureWriter | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self._account = Account(sinks, pictures, progress)
        self._assembler = assembler
        self._pitch = pitch
        self._pictures = pictures
        self._frames = self._bad_frames = 0
        self._scored_to: int | None = None
        self._unscored_lines: Counter[str] = Counter()
        self._unscored_parts: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._is_classifier = False

    def received(self, lines: int) -> None:
        """Counts lines that came."""
        self._account.received(lines)

    def loss(self, loss: Loss) -> None:
        """Reports lost lines."""
        unscored = self._assembler.lose(loss.first_line, loss.lines)
        self._gap((loss.first_line, loss.lines), dict(loss.reasons), loss.detail, unscored)

    def unscored(self, lines: Unscored) -> None:
        """Reports lines of a part that make no frame."""
        self._unscored_lines[lines.reason] += lines.lines
        self._unscored_parts[lines.reason] += not lines.continued
        span = lines.first_line, lines.lines
        self._gap(span, {lines.reason: lines.lines}, lines.detail, span)

    def bad_frame(self, frame: Frame, error: FlawlineError) -> None:
        """Reports a frame that the detector could not score."""
        self._bad_frames += 1
        span = frame.first_line, frame.lines
        self._gap(span, {"bad_frame": frame.lines}, str(error), span)

    def result(self, frame: Frame, result: Result, start_ns: int, timings_ns: Mapping[str, int]) -> None:
        """Reports the verdict on a frame.

        Args:
            frame: What was inspected.
            result: What the detector said.
            start_ns: `time.monotonic_ns()` before the detector was called.
            timings_ns: Nanoseconds of each of the detector's stages.
        """
        scored_ns = time.monotonic_ns()
        self._frames += 1
        # Frames of parts may overlap by their margins.
        end = frame.first_line + frame.lines
        begin = frame.first_line if self._scored_to is None else max(frame.first_line, self._scored_to)
        self._account.lines_scored += end - begin
        self._scored_to = end
        if result.verdict == "reject":
            self._account.rejects += 1
            self._reject(frame, result)
        if result.classification is not None:
            self._is_classifier = True
            if result.verdict == "good":
                self._classes[result.classification.label] += 1
        done_ns = time.monotonic_ns()
        self._account.latency.add(done_ns - frame.arrival_time_ns)
        self._account.time({"wait": start_ns - frame.arrival_time_ns, **timings_ns, "sinks": done_ns - scored_ns})

    def close(self) -> None:
        """Waits for the pictures."""
        self._account.close()

    def summary(self, ended: Ending, source: Source, acquisition: Acquisition, ring: Ring) -> Summary:
        """Gives the account and tells it to the sinks, once everything else has come to rest."""
        is_grid = isinstance(self._assembler, GridAssembler)
        empty = self._assembler.lines_without_part
        summary = msgspec.structs.replace(
            self._account.summary(ended, source, acquisition, ring),
            frames=self._frames,
            bad_frames=self._bad_frames,
            classes=dict(self._classes.most_common()) if self._is_classifier else UNSET,
            lines_without_part=UNSET if empty is None else empty,
            lines_unscored=UNSET if is_grid else dict(self._unscored_lines),
            parts_unscored=UNSET if is_grid else dict(self._unscored_parts),
        )
        self._account.emit(summary)
        return summary

    def _reject(self, frame: Frame, result: Result) -> None:
        # A reject is never silent: without a region, the whole frame is the defect.
        height, width = frame.pixels.shape[:2]
        whole = Region(0, 0, width, height, width * height, result.score, float(result.map.mean()))
        overlay = self._pictures.overlay(frame, result) if self._pictures is not None else None
        found = result.classification
        for number, region in enumerate(result.regions or [whole]):
            self._account.defects += 1
            box = Box(region.x, frame.first_line + region.y, region.width, region.height)
            thumbnail = self._pictures.thumbnail(frame, region, number) if self._pictures is not None else None
            latency_ns = time.monotonic_ns() - frame.arrival_time_ns
            self._account.emit(
                Defect(
                    frame=frame.index,
                    first_line=frame.first_line,
                    box=box,
                    box_mm=self._pitch.box(box) if self._pitch is not None else None,
                    area_px=region.area_px,
                    peak=region.peak,
                    mean=region.mean,
                    frame_score=result.score,
                    label=UNSET if found is None else found.label,
                    probability=UNSET if found is None else found.probability,
                    nearest=UNSET if found is None else found.nearest,
                    p_value=result.p_value,
                    threshold=result.threshold,
                    camera_time_ns=frame.camera_time_ns,
                    arrived=datetime.now(timezone.utc) - timedelta(microseconds=latency_ns / 1000),
                    latency_ms=latency_ns / 1e6,
                    thumbnail=thumbnail,
                    overlay=overlay,
                )
            )

    def _gap(self, span: tuple[int, int], reasons: dict[str, int], detail: str, unscored: tuple[int, int]) -> None:
        first_line, lines = span
        line_mm = self._pitch.line_mm if self._pitch is not None else None
        self._account.emit(
            Gap(
                first_line=first_line,
                lines=lines,
                reasons=reasons,
                unscored_first_line=unscored[0],
                unscored_lines=unscored[1],
                first_mm=None if line_mm is None else first_line * line_mm,
                length_mm=None if line_mm is None else lines * line_mm,
                detail=detail,
            )
        )
