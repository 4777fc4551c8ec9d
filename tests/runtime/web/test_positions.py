"""Where a stream says that something is: a printed target of known geometry, to the line and the pixel."""

import math

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.stream import Defect
from flawline.runtime.web.odometer import Odometer
from tests.runtime.web_bundles import (
    FLAW_PX,
    FLAW_THRESHOLD,
    MAP_STRIDE,
    ArraySource,
    ListSink,
    flawed,
    pixel_bundle,
    stream_web,
)

WIDTH = 150
PIXEL_MM, MM_PER_COUNT = 0.05, 0.01
MARK_MM, MARK_PX = 0.8, 9
MARKS = [(3.0, 20), (11.3, 77), (19.05, 141), (27.77, 1), (38.5, 63), (51.2, 100), (66.6, 30), (80.1, 126)]
"""Where marks begin: millimetres along the web, pixels across."""


def run_of_the_web(counts_per_line: int | None) -> np.ndarray:
    """Where each camera line begins, millimetres: the web starts, runs unevenly, stops, runs back 9 mm, and on."""
    instants = np.arange(0, 1.4, 5e-6)
    speed = np.interp(
        instants, [0, 0.1, 0.3, 0.5, 0.6, 0.65, 0.7, 0.75, 0.85, 1.4], [20, 90, 60, 100, 0, -120, -60, 0, 130, 110]
    )
    web_mm = np.concatenate([[0.0], np.cumsum(speed * 5e-6)])
    if counts_per_line is None:
        return web_mm[::40]  # a free running camera at 5 kHz
    pitch_mm = MM_PER_COUNT * counts_per_line
    cells = np.floor(web_mm / pitch_mm).astype(int)
    crossings = np.flatnonzero(np.diff(cells))
    return np.concatenate([[0.0], np.maximum(cells[crossings], cells[crossings + 1]) * pitch_mm])


def target(at_mm: np.ndarray) -> np.ndarray:
    """What the camera sees of black web with white marks: a line is as bright as its share of a mark."""
    low, high = np.minimum(at_mm[:-1], at_mm[1:]), np.maximum(at_mm[:-1], at_mm[1:])
    pixels = np.zeros((len(low), WIDTH))
    for mark_mm, x in MARKS:
        overlap = np.minimum(high, mark_mm + MARK_MM) - np.maximum(low, mark_mm)
        pixels[:, x : x + MARK_PX] += (np.clip(overlap, 0, None) / np.maximum(high - low, 1e-9))[:, None]
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def blocks(counts: np.ndarray, block_lines: int) -> list[BlockInfo]:
    """Blocks of one direction of travel, as a source has to cut them."""
    infos, start, signs = [], 0, np.sign(np.diff(counts))
    for line in range(1, len(counts)):
        turns = line < len(signs) and signs[line] * signs[start:line].sum() < 0
        if line - start == block_lines or turns or line == len(counts) - 1:
            ends = {"encoder": int(counts[start]) % 2**32, "encoder_end": int(counts[line]) % 2**32}
            infos.append(BlockInfo(Status.OK, start, line - start, **ends))
            start = line
    return infos


@pytest.mark.parametrize("counts_per_line", [None, 5, 10])
@pytest.mark.parametrize("block_lines", [7, 64])
def test_marks_of_a_target_are_placed_to_the_line_and_the_pixel_through_uneven_speed_and_a_reversal(
    tmp_path, counts_per_line, block_lines
):
    at_mm = run_of_the_web(counts_per_line)
    counts = np.floor(at_mm / MM_PER_COUNT + 1e-6).astype(int)
    source, sink = ArraySource(target(at_mm), blocks(counts, block_lines), block_lines), ListSink()
    odometer = Odometer(mm_per_count=MM_PER_COUNT, counts_per_line=counts_per_line)
    summary = stream_web(pixel_bundle(tmp_path / "b.flaw"), source, [sink], odometer=odometer, pixel_mm=PIXEL_MM)
    assert summary.source_counters["reversed_lines"] > 50
    assert summary.source_counters["repeated_lines"] > 50
    assert summary.lines_scored == odometer.next_line < summary.lines_received == len(at_mm) - 1
    # The longest line that shows a part of the mark, besides which the encoder's count is a step.
    defects = sink.of(Defect)
    assert len(defects) == len(MARKS)
    for defect, (mark_mm, x) in zip(defects, MARKS, strict=True):
        assert (defect.box.x, defect.box.width) == (x, MARK_PX)
        assert defect.box_mm.x == pytest.approx(x * PIXEL_MM)
        near = (at_mm[:-1] < mark_mm + MARK_MM + 0.2) & (at_mm[:-1] > mark_mm - 0.2)
        line_mm = np.abs(np.diff(at_mm))[near].max() + MM_PER_COUNT
        assert abs(defect.box_mm.y - mark_mm) <= line_mm
        assert abs(defect.box_mm.y + defect.box_mm.height - mark_mm - MARK_MM) <= line_mm


@pytest.mark.parametrize("strip_lines", [16, 512])
def test_lost_lines_move_no_mark(tmp_path, strip_lines):
    pixels = np.zeros((600, WIDTH), np.uint8)
    marks = [(40, 10), (230, 60), (231, 141), (590, 100)]
    for y, x in marks:
        pixels[y : y + 3, x : x + 5] = 255
    script = [
        BlockInfo(Status.OK, 0, 64),
        BlockInfo(Status.LOST, 64, 101, reason="cable"),
        *(BlockInfo(Status.OK, line, min(64, 600 - line)) for line in range(165, 600, 64)),
    ]
    sink = ListSink()
    source = ArraySource(pixels, script)
    stream_web(pixel_bundle(tmp_path / "b.flaw"), source, [sink], strip_lines=strip_lines)
    assert sorted((d.box.y, d.box.x, d.box.height, d.box.width) for d in sink.of(Defect)) == [(*m, 3, 5) for m in marks]


def test_a_network_that_sees_coarsely_places_flaws_within_what_it_sees_at_once(web_bundle, texture):
    flaws = [(201, 5), (400, 42), (703, 79), (1001, 116)]
    sink, opened = ListSink(), web_bundle()
    stream_web(opened, ArraySource(flawed(texture(1200, WIDTH), flaws)), [sink], threshold=FLAW_THRESHOLD)
    assert len(sink.of(Defect)) == len(flaws)
    # Its receptive field is 15 px wide; smoothing reaches further; positions are in steps of the map.
    reach = 7 + math.ceil(3 * opened.manifest.map.sigma) * MAP_STRIDE + MAP_STRIDE
    for defect, (y, x) in zip(sink.of(Defect), flaws, strict=True):
        box, peak = defect.box, defect.peak_at
        for begin, length, true, at in ((box.y, box.height, y, peak.y), (box.x, box.width, x, peak.x)):
            assert true - reach <= begin <= true + FLAW_PX // 2 <= begin + length <= true + FLAW_PX + reach
            assert true - MAP_STRIDE <= at <= true + FLAW_PX + MAP_STRIDE
