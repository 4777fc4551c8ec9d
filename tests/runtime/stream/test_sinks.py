import errno
import io
import json
from datetime import datetime, timezone

import pytest

from flawline.runtime.stream import Box, BoxMm, Defect, Gap, JsonLinesSink, TextSink

DEFECT = Defect(
    frame=3,
    first_line=240,
    box=Box(40, 270, 10, 6),
    box_mm=BoxMm(4.0, 135.0, 1.0, 3.0),
    area_px=55,
    peak=9.25,
    mean=8.0,
    frame_score=9.25,
    p_value=0.004,
    threshold=5.0,
    camera_time_ns=123,
    arrived=datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc),
    latency_ms=7.5,
    thumbnail="defects/a.png",
    overlay=None,
)
GAP = Gap(
    first_line=100,
    lines=28,
    reasons={"skipped": 20, "incomplete": 8},
    unscored_first_line=80,
    unscored_lines=80,
    first_mm=None,
    length_mm=None,
    detail="",
)


def test_json_lines_carry_every_field():
    file = io.BytesIO()
    sink = JsonLinesSink(file)
    sink.emit(DEFECT)
    sink.emit(GAP)
    defect, gap = map(json.loads, file.getvalue().splitlines())
    assert defect == {
        "type": "defect",
        "frame": 3,
        "first_line": 240,
        "box": {"x": 40, "y": 270, "width": 10, "height": 6},
        "box_mm": {"x": 4.0, "y": 135.0, "width": 1.0, "height": 3.0},
        "area_px": 55,
        "peak": 9.25,
        "mean": 8.0,
        "frame_score": 9.25,
        "p_value": 0.004,
        "threshold": 5.0,
        "camera_time_ns": 123,
        "arrived": "2025-01-02T03:04:05.000678Z",
        "latency_ms": 7.5,
        "thumbnail": "defects/a.png",
        "overlay": None,
    }
    assert gap["type"] == "gap"
    assert gap["reasons"] == {"skipped": 20, "incomplete": 8}


class TightDisk(io.RawIOBase):
    """Takes `room` bytes at a time, less than asked for, as a raw file on a full disk does."""

    def __init__(self) -> None:
        self.room = 1 << 20
        self.content = b""

    def write(self, data) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data)[: self.room]
        self.content += part
        return len(part)


def test_line_torn_by_a_full_disk_does_not_spoil_the_next():
    disk = TightDisk()
    sink = JsonLinesSink(disk)
    sink.emit(GAP)
    for room in (10, 0):
        disk.room = room
        with pytest.raises(OSError, match=r"bytes could be written|No space"):
            sink.emit(DEFECT)
    disk.room = 1 << 20
    sink.emit(GAP)
    first, torn, last = disk.content.splitlines()
    assert json.loads(first) == json.loads(last)
    assert len(torn) == 10


def test_text_says_where_and_how_bad():
    lines = []
    sink = TextSink(lines.append)
    sink.emit(DEFECT)
    sink.emit(GAP)
    assert lines == [
        "defect  frame 3  x 40 line 270 size 10 x 6 px (4.0 mm across, 0.135 m along)  "
        "peak 9.25, threshold 5, p 0.004  7.5 ms",
        "gap     lines 100 to 127  skipped 20, incomplete 8",
    ]
