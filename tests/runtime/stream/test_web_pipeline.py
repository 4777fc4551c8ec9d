"""A web from its source to the sinks, with a real network."""

import contextlib
import math

import numpy as np
import pytest
from scipy import ndimage

from flawline.runtime.bundle import Edges, Shading
from flawline.runtime.cameras import BlockInfo, Status, open_source
from flawline.runtime.errors import InputError
from flawline.runtime.stream import Defect, Gap, TextSink
from flawline.runtime.web.odometer import Odometer
from flawline.runtime.web.recorder import DEFAULT_MARGIN_LINES, Recorder
from tests.runtime.web_bundles import (
    FLAW_THRESHOLD,
    HALO,
    MAP_STRIDE,
    SIGMA,
    ArraySource,
    balance,
    flawed,
    stream_web,
    told,
)

WIDTH, LINES = 150, 1500
FLAWS = [(101, 5), (333, 42), (505, 100), (700, 62), (1004, 120), (1467, 26)]


@pytest.fixture
def pixels(texture) -> np.ndarray:
    return flawed(texture(LINES, WIDTH), FLAWS)


def whole_web(opened, distances: np.ndarray) -> list[tuple[tuple[int, int, int, int], float]]:
    """Boxes and peaks by labelling the map of the whole web at once."""
    sigma = opened.manifest.map.sigma
    weight, total = (
        ndimage.gaussian_filter(values.astype(np.float64), sigma, mode="constant", radius=int(np.ceil(3 * sigma)))
        for values in (np.ones_like(distances), distances)
    )
    smoothed = total / weight
    labels, _ = ndimage.label(smoothed > FLAW_THRESHOLD, np.ones((3, 3)))
    found = []
    for place in ndimage.find_objects(labels):
        y, x = (side.start * MAP_STRIDE for side in place)
        height, width = ((side.stop - side.start) * MAP_STRIDE for side in place)
        found.append(((y, x, height, min(width, WIDTH - x)), float(smoothed[place].max())))
    return sorted(found)


def test_flaws_are_found_once_each_as_on_the_whole_web_whatever_strips_and_blocks(
    web_bundle, pixels, reference_distances, list_sink
):
    opened = web_bundle()
    expected = whole_web(opened, reference_distances(opened, pixels))
    assert len(expected) == len(FLAWS)
    for ((y, x, height, width), _), (flaw_y, flaw_x) in zip(expected, FLAWS, strict=True):
        assert y <= flaw_y + 12 <= y + height
        assert x <= flaw_x + 12 <= x + width
    first = None
    for strip_lines in (16, 64, 512):
        for block_lines in (1, 37, 256, LINES):
            list_sink.events.clear()
            source = ArraySource(pixels, block_lines=block_lines)
            summary = stream_web(opened, source, [list_sink], strip_lines=strip_lines, threshold=FLAW_THRESHOLD)
            found = sorted(((d.box.y, d.box.x, d.box.height, d.box.width), d.peak) for d in list_sink.of(Defect))
            assert [box for box, _ in found] == [box for box, _ in expected]
            assert [peak for _, peak in found] == pytest.approx([peak for _, peak in expected], rel=1e-4)
            first = first or told(list_sink)
            # Defects of one strip come by their last lines, so the order is that of the web too.
            for defect, other in zip(told(list_sink), first, strict=True):
                assert defect["peak"] == pytest.approx(other["peak"], rel=1e-6)
                assert defect["box"] == other["box"]
            assert (summary.lines_received, summary.lines_scored, summary.lines_lost) == (LINES, LINES, {})
            assert (summary.defects, summary.gaps, summary.ended) == (len(FLAWS), 0, "end")
            assert (summary.left_edge, summary.right_edge) == (None, None)
            balance(summary)


def test_a_loss_is_a_gap_and_what_is_near_it_is_flagged(web_bundle, pixels, list_sink):
    script = [
        *(BlockInfo(Status.OK, line, 64) for line in range(0, 512, 64)),
        BlockInfo(Status.LOST, 512, 100, reason="cable", detail="pulled"),
        BlockInfo(Status.INCOMPLETE, 612, 40),
        *(BlockInfo(Status.OK, line, 64) for line in range(652, 652 + 12 * 64, 64)),
    ]
    summary = stream_web(
        web_bundle(),
        ArraySource(pixels, script),
        [list_sink],
        threshold=FLAW_THRESHOLD,
        odometer=Odometer(mm_per_line=0.5),
        line_mm=0.5,
        pixel_mm=0.1,
    )
    gaps = list_sink.of(Gap)
    assert [line for gap in gaps for line in range(gap.first_line, gap.first_line + gap.lines)] == [*range(512, 652)]
    for gap in gaps:
        assert (gap.unscored_first_line, gap.unscored_lines) == (gap.first_line, gap.lines)
        assert (gap.first_mm, gap.length_mm) == (0.5 * gap.first_line, 0.5 * gap.lines)
    assert (summary.gap_lines, summary.gap_mm) == (140, 70.0)
    # The third flaw was cut by the loss; near it, and near the ends, scores rest on made up context.
    assert [defect.flagged for defect in list_sink.of(Defect)] == [False, False, True, False, False]
    reach = HALO + math.ceil(3 * SIGMA) * MAP_STRIDE
    assert 4 * reach <= summary.lines_flagged <= 4 * reach + MAP_STRIDE
    assert summary.lines_lost == {"cable": 100, "incomplete": 40}
    balance(summary)


def test_web_that_only_the_encoder_saw_is_a_gap(web_bundle, pixels, list_sink):
    def block(line: int, web_line: int) -> BlockInfo:
        return BlockInfo(Status.OK, line, 64, encoder=10 * web_line, encoder_end=10 * (web_line + 64))

    script = [block(0, 0), block(64, 64), block(128, 128 + 6), block(192, 192 + 6)]
    odometer = Odometer(mm_per_count=0.01, counts_per_line=10)
    lines: list[str] = []
    sinks = [list_sink, TextSink(lines.append)]
    summary = stream_web(web_bundle(), ArraySource(pixels, script), sinks, odometer=odometer)
    assert lines[0] == "gap     before line 128  6 lines of the web: the encoder ran on without lines"
    (gap,) = list_sink.of(Gap)
    assert (gap.first_line, gap.lines, gap.reasons) == (128, 0, {})
    assert (gap.unscored_first_line, gap.unscored_lines) == (128, 6)
    assert (gap.first_mm, gap.length_mm) == (pytest.approx(12.8), pytest.approx(0.6))
    assert (summary.gap_lines, summary.source_counters["missing_lines"]) == (6, 6)
    balance(summary)


def encoded(line: int, web_line: int, lines: int = 64, step: int = 10) -> BlockInfo:
    return BlockInfo(
        Status.OK,
        line,
        lines,
        line * 1000,
        encoder=10 * web_line,
        encoder_end=10 * web_line + step * lines,
    )


def with_a_reversal() -> list[BlockInfo]:
    """Forwards to web line 768, back by 64, and on, with a loss behind."""
    return [
        *(encoded(line, line) for line in range(0, 768, 64)),
        encoded(768, 768, step=-10),
        encoded(832, 704),
        *(encoded(line, line - 128) for line in range(896, 1152, 64)),
        BlockInfo(Status.LOST, 1152, 64, reason="cable"),
        *(encoded(line, line - 128) for line in range(1216, 1472, 64)),
    ]


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("encoder", [True, False])
def test_a_recording_played_again_has_the_same_defects_bit_for_bit(
    web_bundle, texture, tmp_path, list_sink, everything, encoder
):
    # Nothing near the beginning, from which positions are counted.
    pixels, opened, folder = flawed(texture(LINES, WIDTH), FLAWS[1:]), web_bundle(), tmp_path / "recording"

    def settings() -> dict:
        odometer = Odometer(mm_per_count=0.01, counts_per_line=10) if encoder else Odometer(mm_per_line=0.1)
        return {"threshold": FLAW_THRESHOLD, "odometer": odometer, "line_mm": 0.1, "pixel_mm": 0.1}

    source = ArraySource(pixels, with_a_reversal() if encoder else None)
    recorder = Recorder(folder, source, everything=everything, margin_lines=64, blocks=40)
    first = stream_web(opened, source, [list_sink], recorder=recorder, **settings())
    expected = told(list_sink)
    assert len(expected) >= 4
    blocks = first.source_counters["recorded_blocks"]
    assert first.source_counters["recorder_dropped_blocks"] == first.source_counters["recorder_failed_blocks"] == 0
    list_sink.events.clear()
    with contextlib.closing(open_source(f"replay:{folder}")) as source:
        again = stream_web(opened, source, [list_sink], **settings())
    received = told(list_sink)
    if not everything:
        # Near what was not recorded there is less context: only that may be said more often.
        for defect, other in zip(received, expected, strict=True):
            assert other["flagged"] <= defect["flagged"]
            defect["flagged"] = other["flagged"]
    assert received == expected
    assert again.source_counters["blocks_played"] == blocks
    if everything:
        for name in ("lines_sent", "lines_received", "lines_scored", "lines_lost", "gap_lines", "strips", "rejects"):
            assert getattr(again, name) == getattr(first, name)
        assert again.source_counters["reversed_lines"] == first.source_counters["reversed_lines"] == 64 * encoder
    else:
        assert again.lines_received < first.lines_received
        assert set(again.lines_lost) == {"not_recorded", *(["cable"] if "cable" in again.lines_lost else [])}
    balance(again)


def stands(line: int, count: int) -> BlockInfo:
    return BlockInfo(Status.OK, line, 64, encoder=count, encoder_end=count)


@pytest.mark.parametrize(
    ("before", "start"),
    [
        ([stands(64 * n, 1000) for n in range(3)], 100),
        ([encoded(64 * n, 100 - 64 * n, step=-10) for n in range(3)], 100 - 192),
        ([encoded(0, 100, step=-10), stands(64, 360), BlockInfo(Status.LOST, 128, 64, reason="cable")], 36 + 64),
    ],
)
def test_a_recording_of_a_web_that_stands_or_runs_back_at_first_has_the_same_places(
    web_bundle, texture, tmp_path, list_sink, before, start
):
    pixels, opened = flawed(texture(6000, WIDTH), [(5000, 40)]), web_bundle()
    script = [*before, *(encoded(line, start + line - 192) for line in range(192, 5952, 64))]

    def settings() -> dict:
        odometer = Odometer(mm_per_count=0.01)
        return {"threshold": FLAW_THRESHOLD, "odometer": odometer, "line_mm": 0.1, "pixel_mm": 0.1}

    source = ArraySource(pixels, script)
    recorder = Recorder(tmp_path / "kept", source, margin_lines=200, blocks=20)
    first = stream_web(opened, source, [list_sink], recorder=recorder, **settings())
    assert first.source_counters["recorder_dropped_blocks"] == 0
    assert first.source_counters["recorded_blocks"] < 12
    expected = told(list_sink)
    assert len(expected) == 1
    list_sink.events.clear()
    with contextlib.closing(open_source(f"replay:{tmp_path / 'kept'}")) as source:
        stream_web(opened, source, [list_sink], **settings())
    assert told(list_sink) == expected


def wandering(texture, lines: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A web of 550 px on a dark table of 700, and its left and right edge."""
    left = 60 + np.round(9 * np.sin(np.arange(lines) / 100))
    columns, right = np.arange(700), left + 550
    inside = (columns >= left[:, None]) & (columns < right[:, None])
    return np.where(inside, texture(lines, 700), 0).astype(np.uint8), left, right


def test_a_recording_around_defects_has_what_edges_and_shading_rest_on(web_bundle, texture, tmp_path, list_sink):
    opened = web_bundle(edges=Edges(margin_px=8), shading=Shading(target=128, width_px=200))
    pixels = flawed(wandering(texture, 4000)[0], [(1500, 100), (3100, 400)])
    source, settings = ArraySource(pixels), {"threshold": 7.0, "strip_lines": 512, "pixel_mm": 0.1, "line_mm": 0.1}
    recorder = Recorder(tmp_path / "kept", source, margin_lines=HALO + DEFAULT_MARGIN_LINES, blocks=64)
    first = stream_web(opened, source, [list_sink], recorder=recorder, **settings)
    assert 0 < first.source_counters["recorded_blocks"] < 50
    expected = told(list_sink)
    assert len(expected) >= 2
    list_sink.events.clear()
    with contextlib.closing(open_source(f"replay:{tmp_path / 'kept'}")) as source:
        stream_web(opened, source, [list_sink], **settings)
    assert told(list_sink) == expected


def test_edge_wander_is_measured(web_bundle, list_sink, texture):
    lines = 640
    pixels, left, right = wandering(texture, lines)
    opened = web_bundle(edges=Edges(margin_px=8))
    summary = stream_web(opened, ArraySource(pixels), [list_sink], threshold=1e6, pixel_mm=0.1, strip_lines=64)
    for found, true in ((summary.left_edge, left), (summary.right_edge, right)):
        assert found.lines == lines
        assert found.mean_px == pytest.approx(true.mean(), abs=0.5)
        assert found.std_px == pytest.approx(true.std(), abs=0.5)
        assert (found.min_px, found.max_px) == (pytest.approx(true.min(), abs=4), pytest.approx(true.max(), abs=4))
        assert (found.mean_mm, found.std_mm) == (found.mean_px * 0.1, found.std_px * 0.1)


def test_a_speckled_web_tells_its_strongest_defects_and_counts_the_others(web_bundle, texture, list_sink):
    pixels = texture(640, WIDTH)
    opened, settings = web_bundle(), {"threshold": 3.6, "strip_lines": 320}
    stream_web(opened, ArraySource(pixels), [list_sink], **settings)
    everything = told(list_sink)
    list_sink.events.clear()
    summary = stream_web(opened, ArraySource(pixels), [list_sink], max_strip_defects=3, **settings)
    kept = told(list_sink)
    assert summary.defects == len(kept)
    assert summary.suppressed_defects == len(everything) - len(kept) > 0
    # In the order of the web, and the strongest among them.
    assert [defect for defect in everything if defect in kept] == kept
    assert max(everything, key=lambda defect: defect["peak"]) in kept


def test_a_source_of_another_width_or_colour_is_refused(web_bundle, texture, list_sink):
    opened = web_bundle()
    with pytest.raises(InputError, match=r"lines of 150 px in 3 channels; expected 150 px in 1"):
        stream_web(opened, ArraySource(texture(64, WIDTH, 3)), [list_sink])
    assert list_sink.events == []
