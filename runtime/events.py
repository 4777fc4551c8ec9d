"""What a stream tells the world: defects, gaps and the final account. Each is one JSON object.

Frames and webs share the contract. A field that only one of them has is UNSET in the other, and absent from the JSON.
"""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from flawline.runtime.histogram import Percentiles


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


class Point(msgspec.Struct, frozen=True):
    """A place on the web, pixels.

    Attributes:
        x: Pixels from the first pixel of a line.
        y: Number of the line.
    """

    x: int
    y: int


class Defect(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="defect"):
    """A region of a frame, or of a web, above the threshold.

    Attributes:
        frame: Number of the frame on the web's grid. Frames only.
        first_line: First line of that frame; for a web, of the defect.
        last_line: Last line of the defect. Webs only.
        box: Where the defect is on the web.
        box_mm: The same in millimetres, if the pitch is known.
        peak_at: Where its largest score is. Webs only.
        edge_mm: Millimetres from the left edge of the web to the peak, if pitch and edge are known. Webs only.
        area_px: Pixels of the web that belong to it.
        area_mm2: The same in square millimetres, if the pitch is known. Webs only.
        peak: Largest anomaly score in it.
        mean: Mean anomaly score in it.
        frame_score: Anomaly score of the frame. Frames only.
        label: Class that a classifier takes the frame for; `class` in JSON. Classifiers only, as are the next two.
        probability: Of that class, the softmax of the logits.
        nearest: Class whose Gaussian is nearest, in thresholds of that class.
        p_value: Conformal p-value of the frame's score; for a web, of the peak among the maxima of good strips.
        false_rejects_per_m: So many peaks at least as high are to be expected on a metre of good web; None if the length
            of the good strips is not known. Webs only.
        threshold: What the score exceeds.
        flagged: Whether it lies so near a gap, or an end of the web, that its scores rest on made up context. Webs only.
        open: Whether it was reported for its length, and may go on. Webs only.
        continued: Whether it goes on from a defect that was reported for its length. Webs only.
        camera_time_ns: The source's clock when the frame's last line came; for a web, the defect's.
        arrived: When that line was here, UTC.
        latency_ms: From then until this event was made, milliseconds.
        late: Whether the defect had begun to pass the reject gate by then; None if that is not known. Webs only.
        thumbnail: Picture of the defect and its surroundings, if asked for and not dropped.
        overlay: Picture of the frame with its anomaly map, if asked for and not dropped. Frames only.
    """

    frame: int | UnsetType = UNSET
    first_line: int
    last_line: int | UnsetType = UNSET
    box: Box
    box_mm: BoxMm | None
    peak_at: Point | UnsetType = UNSET
    edge_mm: float | UnsetType | None = UNSET
    area_px: int
    area_mm2: float | UnsetType | None = UNSET
    peak: float
    mean: float
    frame_score: float | UnsetType = UNSET
    label: str | UnsetType = msgspec.field(default=UNSET, name="class")
    probability: float | UnsetType = UNSET
    nearest: str | UnsetType = UNSET
    p_value: float
    false_rejects_per_m: float | UnsetType | None = UNSET
    threshold: float
    flagged: bool | UnsetType = UNSET
    open: bool | UnsetType = UNSET
    continued: bool | UnsetType = UNSET
    camera_time_ns: int
    arrived: datetime
    latency_ms: float
    late: bool | UnsetType | None = UNSET
    thumbnail: str | None
    overlay: str | UnsetType | None = UNSET


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="gap"):
    """Lines that nobody inspected.

    Attributes:
        first_line: First of the lost lines.
        lines: Number of lost lines.
        reasons: Lost lines by reason; `bad_frame` and `bad_strip` are lines that came and that the detector could not score,
            `wrong_height`, `long_part`, `cut_part` and `no_background` such that make no frame.
        unscored_first_line: First line of the frames that the lost lines touch; none of these is scored. For parts, of what
            came of the part that they cut. For a web, the
            first web line that they would have been.
        unscored_lines: Number of lines of those frames; for a web, of web lines that nobody saw.
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


Ending = Literal["end", "stopped", "frame_limit", "line_limit", "source_failed", "detector_failed"]


class Pictures(msgspec.Struct, frozen=True):
    """What became of the thumbnails and overlays: written, dropped because the disk was too slow, failed."""

    written: int = 0
    dropped: int = 0
    failed: int = 0


class Wander(msgspec.Struct, frozen=True):
    """Where an edge of the web was, from the first pixel of a line: pixels, and millimetres if the pitch is known.

    Attributes:
        lines: Web lines on which it was measured.
        mean_px: Mean.
        min_px: Smallest.
        max_px: Largest.
        std_px: Standard deviation.
        mean_mm: As `mean_px`.
        min_mm: As `min_px`.
        max_mm: As `max_px`.
        std_mm: As `std_px`.
    """

    lines: int
    mean_px: float
    min_px: float
    max_px: float
    std_px: float
    mean_mm: float | None
    min_mm: float | None
    max_mm: float | None
    std_mm: float | None


class Summary(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="summary"):
    """The account of a whole stream. `lines_received` plus all of `lines_lost` is `lines_sent`.

    Attributes:
        source: What was streamed.
        ended: Whether the source ended, a stop was asked for, the wanted number of frames or lines was reached, or the source or
            the GPU of the detector failed for good.
        seconds: How long it ran.
        frames: Frames that were scored. Frames only.
        strips: Strips that were scored. Webs only.
        rejects: Scored frames, or strips, above the threshold.
        classes: Frames that passed, by the class that a classifier takes them for. Classifiers only.
        defects: Regions that were reported.
        late_defects: Those that had begun to pass the reject gate. Webs only.
        suppressed_defects: Regions that were not reported, since there were too many in a strip. Webs only.
        bad_frames: Complete frames that the detector could not score. Frames only.
        bad_strips: Strips that the detector could not score. Webs only.
        lines_sent: Lines that the source accounted for.
        lines_received: Lines that reached the assembler.
        lines_scored: Lines of the scored frames; the rest belonged to frames that were bad or not complete. For a web, web
            lines of the scored strips; the rest were lines of bad strips, or showed no new web.
        lines_without_part: Lines that showed the empty conveyor. Frames cut by a part finder only.
        lines_unscored: Lines that came and make no frame, by reason. Frames cut by a trigger or a part finder only.
        parts_unscored: Parts of which such lines were told, by reason. Likewise.
        lines_masked: Scored lines without web between the edges, in steps of the map's rows. Webs only.
        lines_flagged: Scored lines whose context was made up in part, likewise. Webs only.
        gaps: Times that the web was not seen or not scored; a gap that follows another one is the same. Webs only.
        gap_lines: Web lines in them. Webs only.
        gap_mm: Their length, millimetres, if the pitch is known. Webs only.
        left_edge: Wander of the web's left edge; None if edges are not looked for, or no line was inspected. Webs only.
        right_edge: Of its right edge: the pixel behind the last. Webs only.
        lines_lost: Lost lines by reason.
        source_counters: What the source counted, and with it the reads that timed out and the blocks that it repeated.
        policy: What a full ring does.
        ring_blocks: Blocks that fit into the ring.
        ring_peak_blocks: Most blocks that ever waited in it.
        pictures: Thumbnails and overlays.
        events_failed: Events that a sink could not take.
        troubles: The last explanation of each kind of failure, for people.
        latency_ms: From the arrival of a frame's or strip's last line until its verdict and defects were out; None without any.
        defect_latency_ms: From the arrival of a defect's last line until its event. Webs only.
        stages_ms: The parts of `latency_ms`: `wait` in the ring and for the block's other frames, the detector's stages, `sinks`;
            for a web `context`, too, until the lines behind the strip were there.
        stage_shares: The share of each in all of them, between 0 and 1. Webs only.
        line_rate_asked: Lines per second that the source was asked for; None for as fast as possible.
        line_rate_held: Lines per second that came; None if that cannot be told.
    """

    source: str
    ended: Ending
    seconds: float
    frames: int | UnsetType = UNSET
    strips: int | UnsetType = UNSET
    rejects: int
    classes: dict[str, int] | UnsetType = UNSET
    defects: int
    late_defects: int | UnsetType = UNSET
    suppressed_defects: int | UnsetType = UNSET
    bad_frames: int | UnsetType = UNSET
    bad_strips: int | UnsetType = UNSET
    lines_sent: int
    lines_received: int
    lines_scored: int
    lines_without_part: int | UnsetType = UNSET
    lines_unscored: dict[str, int] | UnsetType = UNSET
    parts_unscored: dict[str, int] | UnsetType = UNSET
    lines_masked: int | UnsetType = UNSET
    lines_flagged: int | UnsetType = UNSET
    gaps: int | UnsetType = UNSET
    gap_lines: int | UnsetType = UNSET
    gap_mm: float | UnsetType | None = UNSET
    left_edge: Wander | UnsetType | None = UNSET
    right_edge: Wander | UnsetType | None = UNSET
    lines_lost: dict[str, int]
    source_counters: dict[str, int]
    policy: str
    ring_blocks: int
    ring_peak_blocks: int
    pictures: Pictures
    events_failed: int
    troubles: list[str]
    latency_ms: Percentiles | None
    defect_latency_ms: Percentiles | UnsetType | None = UNSET
    stages_ms: dict[str, Percentiles]
    stage_shares: dict[str, float] | UnsetType = UNSET
    line_rate_asked: float | None
    line_rate_held: float | None


Event = Defect | Gap | Summary
