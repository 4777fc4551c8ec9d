"""Web that nobody saw: how often it is told, when, and where it lies."""

import time

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.errors import InputError
from flawline.runtime.stream import Defect, Gap, Summary
from flawline.runtime.web.odometer import Odometer
from tests.runtime.web_bundles import FLAW_THRESHOLD, MAP_STRIDE, ArraySource, balance, flawed, stream_web

WIDTH = 150


def blocks(first: int, end: int, lines: int = 64) -> list[BlockInfo]:
    return [BlockInfo(Status.OK, line, lines) for line in range(first, end, lines)]


class Slow(ArraySource):
    """Gives lost lines so slowly that each loss comes by itself."""

    def read(self, into: np.ndarray, timeout_s: float) -> BlockInfo:
        info = super().read(into, timeout_s)
        if info.status is Status.LOST:
            time.sleep(0.02)
        return info


@pytest.mark.parametrize("has_encoder", [False, True])
def test_an_outage_that_is_told_in_parts_is_one_gap(web_bundle, texture, list_sink, has_encoder):
    def at(info: BlockInfo) -> BlockInfo:
        return info._replace(encoder=10 * info.first_line, encoder_end=10 * (info.first_line + info.lines))

    script = [
        *map(at, blocks(0, 640)),
        *(BlockInfo(Status.LOST, line, 5, reason="camera_lost") for line in range(640, 740, 5)),
        *map(at, blocks(740, 1380)),
        BlockInfo(Status.LOST, 1380, 60, reason="cable"),
        *map(at, blocks(1440, 1696)),
    ]
    odometer = Odometer(mm_per_count=0.01) if has_encoder else Odometer(mm_per_line=0.1)
    source = Slow(texture(2000, WIDTH), script)
    summary = stream_web(web_bundle(), source, [list_sink], odometer=odometer, line_mm=0.1)
    assert (summary.gaps, summary.gap_lines) == (2, 160)
    assert summary.gap_mm == pytest.approx(16.0)
    gaps = list_sink.of(Gap)
    assert len(gaps) > 5
    assert [
        n for gap in gaps for n in range(gap.unscored_first_line, gap.unscored_first_line + gap.unscored_lines)
    ] == [
        *range(640, 740),
        *range(1380, 1440),
    ]
    for gap in gaps:
        assert gap.first_mm == pytest.approx(0.1 * gap.unscored_first_line)
    balance(summary)


def test_defects_before_a_gap_are_told_before_it(web_bundle, texture, list_sink):
    script = [*blocks(0, 640), BlockInfo(Status.LOST, 640, 64, reason="cable"), *blocks(704, 1344)]
    pixels = flawed(texture(1400, WIDTH), [(600, 40), (720, 90)])
    stream_web(web_bundle(), ArraySource(pixels, script), [list_sink], threshold=FLAW_THRESHOLD)
    assert [type(event) for event in list_sink.events] == [Defect, Gap, Defect, Summary]


def test_a_gap_while_the_web_runs_back_lies_where_the_web_ended(web_bundle, texture, list_sink):
    def block(line: int, web_line: int, step: int) -> BlockInfo:
        return BlockInfo(Status.OK, line, 64, encoder=10 * web_line, encoder_end=10 * (web_line + 64 * step))

    script = [
        *(block(line, line, 1) for line in range(0, 640, 64)),
        *(block(line, 1280 - line, -1) for line in range(640, 960, 64)),
        BlockInfo(Status.LOST, 960, 64, reason="cable"),
        *(block(line, 1280 - line, -1) for line in range(1024, 1216, 64)),
    ]
    odometer = Odometer(mm_per_count=0.01)
    source = ArraySource(texture(1300, WIDTH), script)
    summary = stream_web(web_bundle(), source, [list_sink], odometer=odometer, line_mm=0.1, pixel_mm=0.1)
    (gap,) = list_sink.of(Gap)
    assert (gap.first_line, gap.lines, gap.unscored_first_line, gap.unscored_lines) == (960, 64, 640, 0)
    assert (gap.first_mm, gap.length_mm) == (pytest.approx(64.0), 0.0)
    assert (summary.gaps, summary.gap_lines) == (0, 0)


@pytest.mark.parametrize("lost", [range(401, 402), range(400, 401), range(403, 404), range(401, 403), range(402, 405)])
def test_a_gap_within_a_row_of_the_map_leaves_no_row_to_two_defects(web_bundle, texture, list_sink, lost):
    pixels = flawed(texture(900, WIDTH), [(390, 40)])
    script = [
        BlockInfo(Status.OK, 0, lost.start),
        BlockInfo(Status.LOST, lost.start, len(lost), reason="cable"),
        BlockInfo(Status.OK, lost.stop, 900 - lost.stop),
    ]
    source = ArraySource(pixels, script, block_lines=600)
    summary = stream_web(web_bundle(), source, [list_sink], threshold=FLAW_THRESHOLD)
    rows = [
        row
        for defect in list_sink.of(Defect)
        for row in range(defect.box.y // MAP_STRIDE, (defect.box.y + defect.box.height) // MAP_STRIDE)
    ]
    assert len(rows) == len(set(rows)) > 4
    assert len(list_sink.of(Defect)) == 2
    assert summary.lines_scored == 900 - len(lost)


def test_a_source_without_the_counts_that_are_expected_leaves_an_account(web_bundle, texture, list_sink):
    with pytest.raises(InputError, match="line 0 has no encoder count"):
        stream_web(
            web_bundle(),
            ArraySource(texture(640, WIDTH)),
            [list_sink],
            odometer=Odometer(mm_per_count=0.1),
            ring_blocks=2,
        )
    (summary,) = list_sink.of(Summary)
    assert (summary.ended, summary.lines_scored) == ("source_failed", 0)
    balance(summary)
