import dataclasses
import itertools
import json
import time
from datetime import datetime, timezone

import msgspec
import numpy as np
import pytest

from flawline.runtime.events import Pictures, Point
from flawline.runtime.images import read_image
from flawline.runtime.stream import Box, BoxMm, Defect, Event, PictureWriter
from flawline.runtime.web.components import Component
from flawline.runtime.web.defects import DefectMaker, Measures
from flawline.runtime.web.finder import DefectFinder
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.history import LineHistory
from flawline.runtime.web.inspector import InspectedStrip
from flawline.runtime.web.stitching import MapRows

MS = 1_000_000
COMPONENT = Component(
    x=10,
    y=100,
    width=4,
    height=3,
    area=9,
    peak=7.5,
    peak_x=12,
    peak_y=101,
    mean=6.0,
    flagged=False,
    open=False,
    continued=False,
)


@pytest.fixture
def history() -> LineHistory:
    history = LineHistory(1000)
    for block in range(10):  # 1000 lines/s
        history.arrived(64 * block, 64, 1000 + block, 64 * (block + 1) * MS)
    history.edges(0, np.full(640, 8.5, np.float32))
    return history


def maker(history: LineHistory, measures: Measures) -> DefectMaker:
    scores = np.sort(np.arange(99))
    return DefectMaker(
        map_stride=4,
        width=1000,
        threshold=5.0,
        p_value=lambda score: (1 + int((scores >= score).sum())) / 100,
        history=history,
        measures=measures,
    )


def test_places_times_and_chances_are_those_of_the_region(history):
    measures = Measures(lambda line: 0.5 * line, pixel_mm=0.1, strip_mm=256.0, gate_mm=200.0)
    now_ns = time.monotonic_ns()
    defect = maker(history, measures)(COMPONENT, "a.png", 650 * MS)
    assert (defect.first_line, defect.last_line) == (400, 411)
    assert defect.box == Box(40, 400, 16, 12)
    assert defect.box_mm == BoxMm(pytest.approx(4.0), 200.0, pytest.approx(1.6), 6.0)
    assert defect.peak_at == Point(50, 406)
    assert defect.edge_mm == pytest.approx(4.15)
    assert (defect.area_px, defect.area_mm2) == (144, pytest.approx(144 * 0.05))
    assert (defect.peak, defect.mean, defect.threshold) == (7.5, 6.0, 5.0)
    assert defect.p_value == 0.92
    assert defect.false_rejects_per_m == pytest.approx(0.92 / 0.256)
    assert defect.camera_time_ns == 1006  # lines 384 to 447
    assert defect.latency_ms == 650 - 448
    age_s = (datetime.now(timezone.utc) - defect.arrived).total_seconds() - (time.monotonic_ns() - now_ns) / 1e9
    assert age_s == pytest.approx(0.202, abs=0.1)
    assert defect.thumbnail == "a.png"
    assert (defect.flagged, defect.open, defect.continued) == (False, False, False)


@pytest.mark.parametrize(("gate_mm", "late"), [(125.0, False), (124.9, True)])
def test_a_defect_is_late_when_its_first_line_has_passed_the_gate(history, gate_mm, late):
    # At 650 ms line 650 passes the camera: the web has moved on by 250 lines of 0.5 mm.
    measures = Measures(lambda line: 0.5 * line, gate_mm=gate_mm)
    assert maker(history, measures)(COMPONENT, now_ns=650 * MS).late is late


def test_what_is_not_known_is_null(history):
    defect = maker(LineHistory(10), Measures(gate_mm=100.0))(COMPONENT)
    assert defect.latency_ms == 0
    unknown = (
        defect.box_mm,
        defect.area_mm2,
        defect.edge_mm,
        defect.false_rejects_per_m,
        defect.late,
        defect.thumbnail,
    )
    assert unknown == (None,) * 6


def test_the_last_cell_ends_with_the_line(history):
    at_the_border = dataclasses.replace(COMPONENT, x=248, width=3, peak_x=250)
    defect = DefectMaker(
        map_stride=4, width=1001, threshold=5.0, p_value=lambda score: 1.0, history=history, measures=Measures()
    )(at_the_border)
    assert defect.box == Box(992, 400, 9, 12)
    assert defect.peak_at.x == 1000


def test_frames_and_webs_share_one_contract(history):
    defect = maker(history, Measures())(COMPONENT)
    encoded = json.loads(msgspec.json.encode(defect))
    assert encoded["type"] == "defect"
    assert not {"frame", "frame_score", "overlay"} & set(encoded)
    assert encoded["late"] is None
    assert msgspec.json.decode(msgspec.json.encode(defect), type=Event) == defect


GEOMETRY = Geometry(strip_lines=64, tile_px=64, halo=32, ring=0, stride=16, map_stride=4)
WIDTH, ROWS = 256, 400
HALO = GEOMETRY.halo


def web() -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and a map with flaws of many lengths."""
    rng = np.random.default_rng(3)
    values = rng.random((ROWS, WIDTH // 4)).astype(np.float32)
    for _ in range(25):
        row, column = rng.integers(0, ROWS - 40), rng.integers(0, WIDTH // 4 - 8)
        flaw = values[row : row + rng.integers(1, 40), column : column + rng.integers(1, 8)]
        flaw += 5
    return rng.integers(0, 256, (4 * ROWS, WIDTH), np.uint8), values


def strips(pixels: np.ndarray, values: np.ndarray, ends: list[int], first_line: int = 0, delay_rows: int = 5):
    """The map of a stretch of web in strips that end at some rows, each given out later than its lines."""
    window = np.pad(pixels, ((HALO, HALO), (HALO, HALO)), mode="reflect")
    given = 0
    for start, end in itertools.pairwise([0, *ends, len(values)]):
        until = end if end == len(values) else max(given, end - delay_rows)
        part = values[given:until]
        rows = MapRows(first_line // 4 + given, part, np.ones(part.shape, bool), np.zeros(len(part), bool))
        left = np.full(4 * (end - start), 3.0, np.float32)
        yield InspectedStrip(
            first_line=first_line + 4 * start,
            end=first_line + 4 * end,
            rows=rows,
            left=left,
            right=left + WIDTH,
            window=window[4 * start : 4 * end + 2 * HALO],
            timings_ns={},
        )
        given = until


def finder(**options) -> DefectFinder:
    return DefectFinder(
        GEOMETRY,
        WIDTH,
        threshold=4.0,
        p_value=lambda score: 0.01,
        max_lines=1600,
        measures=Measures(float, 1.0),
        **options,
    )


def found(find: DefectFinder, pieces) -> list[Defect]:
    defects = [defect for strip in pieces for defect in find.add(strip)] + list(find.cut())
    now = datetime.now(timezone.utc)
    return [msgspec.structs.replace(defect, arrived=now, latency_ms=0.0) for defect in defects]


def anonymous(defects: list[Defect]) -> list[Defect]:
    never = datetime.fromtimestamp(0, timezone.utc)
    return [msgspec.structs.replace(defect, arrived=never, thumbnail=None) for defect in defects]


@pytest.mark.parametrize("height", [4, 16, 100])
def test_defects_do_not_depend_on_the_strips(height):
    pixels, values = web()
    options = {"merge_distance_px": (8, 4), "min_area_px": 40}
    whole = found(finder(**options), strips(pixels, values, []))
    assert len(whole) > 5
    pieces = found(finder(**options), strips(pixels, values, list(range(height, ROWS, height))))
    assert anonymous(pieces) == anonymous(whole)
    assert all(defect.edge_mm == defect.peak_at.x - 3 for defect in pieces)


def test_a_flaw_ends_at_a_gap_even_of_one_line():
    pixels = np.zeros((64, WIDTH), np.uint8)
    flaw = np.full((16, WIDTH // 4), 9, np.float32)
    find = finder()
    before, behind = strips(pixels, flaw, []), strips(pixels, flaw, [], 64)
    (last,) = list(behind)
    last = dataclasses.replace(last, left=last.left[1:])  # line 64 is lost
    defects = found(find, [*before, last])
    assert [(defect.first_line, defect.last_line) for defect in defects] == [(0, 63), (64, 127)]


def test_thumbnails_show_the_peak_though_it_is_long_gone(tmp_path):
    pixels, values = web()
    writer = PictureWriter(thumbnails=tmp_path)
    find = finder(thumbnails=writer)
    defects = found(find, strips(pixels, values, list(range(16, ROWS, 16))))
    assert writer.close() == Pictures(written=len(defects))
    inside = 0
    for defect in defects:
        picture = read_image(defect.thumbnail)
        assert max(picture.shape) <= 256
        y, x = defect.peak_at.y, defect.peak_at.x
        around = pixels[y - 3 : y + 3, x - 3 : x + 3]
        windows = np.lib.stride_tricks.sliding_window_view(picture, (6, 6))
        if around.shape == (6, 6):
            inside += 1
            assert (windows == around).all(axis=(2, 3)).any()
    assert inside > 5
