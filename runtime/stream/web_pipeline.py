"""The whole stream of an endless web: source, ring, odometer, flat field, inspector, defects, sinks."""

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flawline.runtime.cameras.source import Loss, Source, line_shape
from flawline.runtime.errors import DeviceError, InputError
from flawline.runtime.events import Defect, Ending, Summary
from flawline.runtime.memory import require
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.pictures import PictureWriter
from flawline.runtime.stream.ring import Block, Policy, Ring
from flawline.runtime.stream.session import DEFAULT_RING_BLOCKS, stream
from flawline.runtime.stream.sinks import DefectSink
from flawline.runtime.stream.web_report import WebReport
from flawline.runtime.web.defects import Measures
from flawline.runtime.web.finder import DefectFinder
from flawline.runtime.web.flat_field import FlatFieldCorrector
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.history import BYTES_PER_LINE
from flawline.runtime.web.inspector import InspectedStrip, WebInspector
from flawline.runtime.web.odometer import Missing, Odometer, Stretch
from flawline.runtime.web.recorder import Recorder

NOWHERE = 1 << 62
"""The web line of what has no place on the web."""


@dataclass(kw_only=True)
class WebStream:
    """How a web is streamed.

    Attributes:
        inspector: Scores strips; the caller closes it.
        threshold: Values above it belong to a defect.
        p_value: Share of good strips whose maximum is at least a score.
        sinks: Where events go; the caller closes them.
        odometer: Where lines lie along the web.
        max_defect_lines: Length after which a defect that goes on is reported as it is.
        merge_px: Pixels along and across the web that may lie between parts of one defect.
        min_area_px: Smallest defect, pixels of the web.
        max_strip_defects: Defects that are told per strip, those with the highest peaks; None for all.
        pixel_mm: Distance of neighbouring pixels, if positions across the web are wanted in millimetres.
        line_mm: Travel of the web per line, likewise; where speed varies, that of the good web.
        gate_mm: From the camera's line to the reject gate, if defects that come too late for it are to be counted.
        flat_field: Taken out of every line, if given.
        recorder: Keeps raw blocks, if wanted; closed at the end.
        policy: What happens when the detector is slower than the line and the ring is full; see `Ring`.
        ring_blocks: Blocks that may wait.
        stop: Ends the stream when set; is set when the stream is over.
        max_lines: Camera lines after which the stream ends; None for no such limit.
        pictures: Writes thumbnails; closed at the end.
        progress: Called with the number of lines that came since the last call.
    """

    inspector: WebInspector
    threshold: float
    p_value: Callable[[float], float]
    sinks: Sequence[DefectSink]
    odometer: Odometer
    max_defect_lines: int
    merge_px: tuple[int, int] = (0, 0)
    min_area_px: int = 0
    max_strip_defects: int | None = None
    pixel_mm: float | None = None
    line_mm: float | None = None
    gate_mm: float | None = None
    flat_field: FlatFieldCorrector | None = None
    recorder: Recorder | None = None
    policy: Policy = "block"
    ring_blocks: int = DEFAULT_RING_BLOCKS
    stop: threading.Event = field(default_factory=threading.Event)
    max_lines: int | None = None
    pictures: PictureWriter | None = None
    progress: Callable[[int], object] | None = None

    def run(self, source: Source) -> Summary:
        """Streams until the source ends, `stop` is set, or enough lines were seen.

        The source is read in a thread of its own; everything else runs in the caller's. A strip that cannot be scored
        becomes a gap and the stream goes on; a GPU that fails ends it, since no later strip could be scored either.

        Args:
            source: An open source; the caller closes it.

        Returns:
            The account, which the sinks have received as well.

        Raises:
            FlawlineError: The source failed for good; the sinks have received the account.
            DeviceError: The GPU failed; likewise.
            InputError: The source has lines of another width or colour than the inspector.
            ResourceError: The ring, or what is remembered of long defects, would not fit into memory.
        """
        self.check(source)
        inspection = _Inspection(self)
        ring = Ring(self.ring_blocks, (source.block_lines, *line_shape(source)), self.policy)
        self.inspector.warm_up()
        return stream(
            source,
            ring,
            self.stop,
            lambda: inspection.run(ring),
            inspection.close,
            lambda ended, acquisition: inspection.summary(ended, source, acquisition, ring),
        )

    def check(self, source: Source) -> None:
        """Refuses a source whose lines do not fit, and what does not fit into memory; see `run`."""
        channels = self.inspector.bundle.manifest.input.channels
        if (source.width, source.channels) != (self.inspector.width, channels):
            raise InputError(
                f"the source has lines of {source.width} px in {source.channels} channels; expected "
                f"{self.inspector.width} px in {channels}"
            )
        require(
            self.ring_blocks * source.block_lines * math.prod(line_shape(source)),
            f"a ring of {self.ring_blocks} blocks of {source.block_lines} lines",
            "ask for fewer or smaller ones",
        )
        # Arrival and edge are remembered of as many lines.
        require(
            BYTES_PER_LINE * self.max_defect_lines,
            f"defects of {self.max_defect_lines} lines",
            "have them reported sooner",
        )


class _Inspection:
    """One run of a stream: what comes out of the ring, to defects."""

    def __init__(self, settings: WebStream) -> None:
        geometry = settings.inspector.geometry
        odometer = settings.odometer
        millimetres = odometer.millimetres if odometer.has_encoder or settings.line_mm is not None else None
        strip_mm = (
            None
            if settings.line_mm is None
            else Geometry.of(settings.inspector.bundle.padim).strip_lines * settings.line_mm
        )
        web = settings.inspector.bundle.manifest.web
        self._has_edges = web is not None and web.edges is not None
        self._settings = settings
        self._inspector = settings.inspector
        self._odometer = odometer
        self._finder = DefectFinder(
            geometry,
            settings.inspector.width,
            threshold=settings.threshold,
            p_value=settings.p_value,
            max_lines=settings.max_defect_lines,
            merge_distance_px=settings.merge_px,
            min_area_px=settings.min_area_px,
            most=settings.max_strip_defects,
            measures=Measures(millimetres, settings.pixel_mm, strip_mm, settings.gate_mm),
            thumbnails=settings.pictures,
        )
        self._report = WebReport(
            settings.sinks,
            geometry.map_stride,
            millimetres=millimetres,
            pixel_mm=settings.pixel_mm,
            edges=self._has_edges,
            pictures=settings.pictures,
            progress=settings.progress,
        )
        self._received = 0
        self._complete_ns = 0
        self._origin: int | None = None  # the recorded block from which positions are counted
        self._has_begun = False

    def run(self, ring: Ring) -> Ending:
        """Inspects until the ring is empty and its producer has finished, or enough was seen."""
        settings = self._settings
        while (item := ring.take()) is not None:
            if isinstance(item, Loss):
                self._lose(item)
                continue
            self._take(item)
            ring.release(item)
            self._received += item.info.lines
            if settings.max_lines is not None and self._received >= settings.max_lines:
                self._end()
                return "line_limit"
            if settings.stop.is_set():
                break
        self._end()
        return "stopped" if settings.stop.is_set() else "end"

    def close(self) -> None:
        """Waits for pictures and recorder."""
        self._report.close()
        if self._settings.recorder is not None:
            self._settings.recorder.close()

    def summary(self, ended: Ending, source: Source, acquisition: Acquisition, ring: Ring) -> Summary:
        """See `stream`."""
        return self._report.summary(
            ended, source, acquisition, ring, self._counters(), self._troubles(), self._finder.suppressed
        )

    def _counters(self) -> Mapping[str, int]:
        odometer, recorder = self._odometer, self._settings.recorder
        counters = {
            "reversed_lines": odometer.reversed_lines,
            "repeated_lines": odometer.repeated_lines,
            "missing_lines": odometer.missing_lines,
            "encoder_faults": odometer.encoder_faults,
            "encoder_resets": odometer.encoder_resets,
        }
        if self._has_edges:
            counters["crossed_edge_lines"] = self._inspector.crossed_lines
        if recorder is not None:
            recorded = recorder.recorded
            counters |= {
                "recorded_blocks": recorded.written,
                "recorder_dropped_blocks": recorded.dropped,
                "recorder_failed_blocks": recorded.failed,
            }
        return counters

    def _troubles(self) -> list[str]:
        recorder, fallen = self._settings.recorder, self._inspector.fallback_reason
        troubles = [] if fallen is None else [f"{self._inspector.backend} has taken over: {fallen}"]
        return troubles + ([recorder.error] if recorder is not None and recorder.error else [])

    def _lose(self, loss: Loss) -> None:
        missing = self._odometer.lost(loss.first_line, loss.lines)
        if missing is None:
            first_line, lines = self._odometer.next_line or 0, 0
        else:
            self._end()  # defects before the gap are told before it
            first_line, lines = missing
        self._report.loss(loss, first_line, lines)
        if self._settings.recorder is not None:
            self._settings.recorder.lose(loss, self._web_line if missing is None else first_line)

    def _take(self, block: Block) -> None:
        info, settings = block.info, self._settings
        self._report.received(info.lines)
        stretch = self._odometer.locate(info)
        if settings.recorder is not None:
            self._record(settings.recorder, block, stretch)
        if stretch is None:
            return
        lines = block.pixels[stretch.rows]
        if settings.flat_field is not None:
            settings.flat_field(lines)
        self._complete_ns = info.arrival_time_ns
        expected = self._inspector.next_line
        if expected is not None and expected != stretch.first_line:
            self._end()
            self._report.unseen(Missing(expected, stretch.first_line - expected), info.first_line)
        self._finder.history.arrived(stretch.first_line, len(lines), info.camera_time_ns, info.arrival_time_ns)
        self._inspect(self._inspector.add(lines, stretch.first_line))

    def _record(self, recorder: Recorder, block: Block, stretch: Stretch | None) -> None:
        number = recorder.add(block.pixels, block.info, self._web_line if stretch is None else stretch.first_line)
        if self._has_begun:
            return
        # Played again, positions are counted from the first new web as well, or from where the web had run back to before.
        if stretch is None or self._origin is None:
            self._origin = number
        if stretch is not None:
            recorder.keep_since(self._origin)
            self._has_begun = True

    @property
    def _web_line(self) -> int:
        """Where the web goes on; nowhere near a defect before it has begun."""
        return NOWHERE if self._odometer.next_line is None else self._odometer.next_line

    def _end(self) -> None:
        """A stretch of web is over."""
        self._inspect(self._inspector.cut())
        self._tell(self._finder.cut())

    def _inspect(self, strips: Iterable[InspectedStrip]) -> None:
        for strip in strips:
            if strip.error is not None:
                self._report.bad_strip(strip.end - len(strip.left), len(strip.left), strip.error)
            self._tell(self._finder.add(strip))
            arrival = self._finder.history.arrival(strip.end - 1)
            arrival_ns = strip.start_ns if arrival is None else arrival.arrival_time_ns
            if isinstance(strip.error, DeviceError):
                self._tell(self._finder.cut())
                raise strip.error
            if strip.error is None:
                self._report.strip(
                    strip,
                    rejected=self._finder.rejected,
                    arrival_time_ns=arrival_ns,
                    complete_time_ns=max(arrival_ns, self._complete_ns),
                    label_ns=self._finder.label_ns,
                )

    def _tell(self, defects: Iterable[Defect]) -> None:
        for defect in defects:
            self._report.defect(defect)
            if self._settings.recorder is not None:
                self._settings.recorder.keep(defect.box.y, defect.box.y + defect.box.height - 1)
