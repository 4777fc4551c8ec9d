"""Where events go. A sink for a plant's bus or a live page is one more class with the same two methods."""

from collections.abc import Callable
from typing import IO, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from flawline.runtime.events import Defect, Event, Gap, Summary, Wander


class DefectSink(Protocol):
    """Takes events, in the order of the web, from the detector's thread: it must not wait for anything slow."""

    def emit(self, event: Event) -> None:
        """Takes one event.

        Raises:
            OSError: It could not be delivered; the stream counts that and goes on.
        """

    def close(self) -> None:
        """Delivers what is left and frees what the sink holds."""


class JsonLinesSink:
    """Writes one JSON object per line, each at once.

    Args:
        file: Binary file; it is flushed after every event and left open.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()
        self._torn = False

    def emit(self, event: Event) -> None:
        """See `DefectSink`."""
        line = self._encoder.encode(event) + b"\n"
        if self._torn:
            # A full disk cut the line before: it must not spoil this one as well.
            line = b"\n" + line
        written = self._file.write(line)
        self._file.flush()
        self._torn = written < len(line)
        if self._torn:
            raise OSError(f"only {written} of {len(line)} bytes could be written")

    def close(self) -> None:
        """See `DefectSink`."""
        self._file.flush()


class TextSink:
    """Writes one line per event for people.

    Args:
        write: Takes a line without its line break.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def emit(self, event: Event) -> None:
        """See `DefectSink`."""
        if isinstance(event, Defect):
            self._write(_defect_line(event))
        elif isinstance(event, Gap):
            self._write(_gap_line(event))
        else:
            for line in _summary_lines(event):
                self._write(line)

    def close(self) -> None:
        """See `DefectSink`."""


def _defect_line(event: Defect) -> str:
    box, mm = event.box, event.box_mm
    place = f"x {box.x} line {box.y} size {box.width} x {box.height} px"
    if mm is not None:
        place += f" ({mm.x:.1f} mm across, {mm.y / 1000:.3f} m along)"
    scores = f"peak {event.peak:.4g}, threshold {event.threshold:.4g}, p {event.p_value:.2g}"
    frame = "" if event.frame is UNSET else f"frame {event.frame}  "
    remarks = {
        "near a gap or an end": event.flagged,
        "goes on": event.open,
        "continued": event.continued,
        "LATE": event.late,
    }
    said = "".join(f", {remark}" for remark, holds in remarks.items() if holds is True)
    return f"defect  {frame}{place}  {scores}  {event.latency_ms:.1f} ms{said}"


def _gap_line(event: Gap) -> str:
    reasons = ", ".join(f"{reason} {lines}" for reason, lines in event.reasons.items())
    if event.lines:
        text = f"gap     lines {event.first_line} to {event.first_line + event.lines - 1}  {reasons}"
    else:
        text = f"gap     before line {event.first_line}  {event.unscored_lines} lines of the web"
    return f"{text}: {event.detail}" if event.detail else text


def _parts(parts: dict[str, int], lines: dict[str, int], empty: int | UnsetType) -> str:
    unscored = ", ".join(f"{reason} {count} ({lines[reason]} lines)" for reason, count in parts.items()) or "none"
    return f"not scored: {unscored}" + ("" if empty is UNSET else f"; {empty} lines without part")


def _summary_lines(summary: Summary) -> list[str]:
    lost = ", ".join(f"{reason} {lines}" for reason, lines in summary.lines_lost.items()) or "none"
    asked = "as fast as possible" if summary.line_rate_asked is None else f"{summary.line_rate_asked:.0f} lines/s"
    held = "too short to tell" if summary.line_rate_held is None else f"{summary.line_rate_held:.0f} lines/s"
    if summary.strips is UNSET:
        items, scored, bad, late = "frames", summary.frames, summary.bad_frames, ""
    else:
        items, scored, bad, late = (
            "strips",
            summary.strips,
            summary.bad_strips,
            f", {summary.late_defects} of them late"
            + (f", {summary.suppressed_defects} more suppressed" if summary.suppressed_defects else ""),
        )
    lines = [
        f"{items}  {scored} scored, {summary.rejects} rejected, {bad} bad; {summary.defects} defects{late}",
        f"lines   {summary.lines_sent} sent, {summary.lines_received} received, {summary.lines_scored} scored; lost: {lost}",
        f"rate    asked {asked}, held {held}",
    ]
    if summary.lines_unscored is not UNSET and summary.parts_unscored is not UNSET:
        lines.append(f"parts   {_parts(summary.parts_unscored, summary.lines_unscored, summary.lines_without_part)}")
    if summary.strips is not UNSET:
        length = "" if not isinstance(summary.gap_mm, float) else f" ({summary.gap_mm / 1000:.3f} m)"
        lines.append(
            f"web     {summary.lines_masked} lines masked, {summary.lines_flagged} flagged; "
            f"{summary.gaps} gaps of {summary.gap_lines} lines{length}"
        )
        for side, edge in (("left", summary.left_edge), ("right", summary.right_edge)):
            if isinstance(edge, Wander):
                mm = "" if edge.mean_mm is None else f" ({edge.mean_mm:.2f} +- {edge.std_mm:.2f} mm)"
                lines.append(
                    f"edge    {side} at {edge.mean_px:.1f} +- {edge.std_px:.1f} px{mm}, "
                    f"from {edge.min_px:.0f} to {edge.max_px:.0f}"
                )
    times = {"latency": summary.latency_ms}
    if summary.defect_latency_ms is not UNSET:
        times["defects"] = summary.defect_latency_ms
    times |= {f"  {name}": times for name, times in summary.stages_ms.items()}
    lines += [
        f"{name:9} p50 {entry.p50:.2f}  p90 {entry.p90:.2f}  p99 {entry.p99:.2f}  max {entry.max:.2f} ms"
        for name, entry in times.items()
        if entry is not None
    ]
    pictures = summary.pictures
    if pictures != type(pictures)():
        lines.append(f"pictures  {pictures.written} written, {pictures.dropped} dropped, {pictures.failed} failed")
    if summary.events_failed:
        lines.append(f"events  {summary.events_failed} could not be delivered")
    return lines
