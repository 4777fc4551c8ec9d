"""What a stream tells the world: defects, gaps and the final account. Each is one JSON object."""

from datetime import datetime
from typing import Literal

import msgspec

from flawline.runtime.stream.histogram import Percentiles


class Box(msgspec.Struct, frozen=True):
    """A rectangle on the web, in pixels.

    Attributes:
        x: Left edge: pixels from the first pixel of a line.
        y: Upper edge: number of its first line.
        width: Pixels across the web.
        height: Lines.
    """

    x: int
    y: int
    width: int
    height: int


class BoxMm(msgspec.Struct, frozen=True):
    """The same in millimetres, across from the first pixel and along from line 0."""

    x: float
    y: float
    width: float
    height: float


class Pitch(msgspec.Struct, frozen=True):
    """Size of a pixel on the web.

    Attributes:
        line_mm: Travel of the web from one line to the next, millimetres.
        pixel_mm: Distance of neighbouring pixels across the web, millimetres.
    """

    line_mm: float
    pixel_mm: float

    def box(self, box: Box) -> BoxMm:
        """Converts pixels to millimetres."""
        return BoxMm(box.x * self.pixel_mm, box.y * self.line_mm, box.width * self.pixel_mm, box.height * self.line_mm)


class Defect(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="defect"):
    """A region of a frame above the threshold.

    Attributes:
        frame: Number of the frame on the web's grid.
        first_line: First line of that frame.
        box: Where the defect is on the web.
        box_mm: The same in millimetres, if the pitch is known.
        area_px: Pixels of the web that belong to it.
        peak: Largest anomaly score in it.
        mean: Mean anomaly score in it.
        frame_score: Anomaly score of the frame.
        p_value: Conformal p-value of the frame's score.
        threshold: What the score exceeds.
        camera_time_ns: The source's clock when the frame's last line came.
        arrived: When the frame's last line was here, UTC.
        latency_ms: From then until this event was made, milliseconds.
        thumbnail: Picture of the defect and its surroundings, if asked for and not dropped.
        overlay: Picture of the frame with its anomaly map, if asked for and not dropped.
    """

    frame: int
    first_line: int
    box: Box
    box_mm: BoxMm | None
    area_px: int
    peak: float
    mean: float
    frame_score: float
    p_value: float
    threshold: float
    camera_time_ns: int
    arrived: datetime
    latency_ms: float
    thumbnail: str | None
    overlay: str | None


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="gap"):
    """Lines that nobody inspected.

    Attributes:
        first_line: First of the lost lines.
        lines: Number of lost lines.
        reasons: Lost lines by reason; `bad_frame` are lines that came and that the detector could not score.
        unscored_first_line: First line of the frames that the lost lines touch; none of these is scored.
        unscored_lines: Number of lines of those frames.
        first_mm: Position of the first lost line, millimetres, if the pitch is known.
        length_mm: Length of the lost lines, millimetres, if the pitch is known.
        detail: What happened, for people.
    """

    first_line: int
    lines: int
    reasons: dict[str, int]
    unscored_first_line: int
    unscored_lines: int
    first_mm: float | None
    length_mm: float | None
    detail: str


Ending = Literal["end", "stopped", "frame_limit", "source_failed", "detector_failed"]


class Pictures(msgspec.Struct, frozen=True):
    """What became of the thumbnails and overlays: written, dropped because the disk was too slow, failed."""

    written: int = 0
    dropped: int = 0
    failed: int = 0


class Summary(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="summary"):
    """The account of a whole stream. `lines_received` plus all of `lines_lost` is `lines_sent`.

    Attributes:
        source: What was streamed.
        ended: Whether the source ended, a stop was asked for, the wanted number of frames was reached, or the source or
            the GPU of the detector failed for good.
        seconds: How long it ran.
        frames: Frames that were scored.
        rejects: Scored frames above the threshold.
        defects: Regions that were reported.
        bad_frames: Complete frames that the detector could not score.
        lines_sent: Lines that the source accounted for.
        lines_received: Lines that reached the assembler.
        lines_scored: Lines of the scored frames; the rest belonged to frames that were bad or not complete.
        lines_lost: Lost lines by reason.
        source_counters: What the source counted, and with it the reads that timed out and the blocks that it repeated.
        policy: What a full ring does.
        ring_blocks: Blocks that fit into the ring.
        ring_peak_blocks: Most blocks that ever waited in it.
        pictures: Thumbnails and overlays.
        events_failed: Events that a sink could not take.
        troubles: The last explanation of each kind of failure, for people.
        latency_ms: From the arrival of a frame's last line until its verdict and defects were out; None without frames.
        stages_ms: The parts of that: `wait` in the ring and for the block's other frames, the detector's stages, `sinks`.
        line_rate_asked: Lines per second that the source was asked for; None for as fast as possible.
        line_rate_held: Lines per second that came; None if that cannot be told.
    """

    source: str
    ended: Ending
    seconds: float
    frames: int
    rejects: int
    defects: int
    bad_frames: int
    lines_sent: int
    lines_received: int
    lines_scored: int
    lines_lost: dict[str, int]
    source_counters: dict[str, int]
    policy: str
    ring_blocks: int
    ring_peak_blocks: int
    pictures: Pictures
    events_failed: int
    troubles: list[str]
    latency_ms: Percentiles | None
    stages_ms: dict[str, Percentiles]
    line_rate_asked: float | None
    line_rate_held: float | None


Event = Defect | Gap | Summary
