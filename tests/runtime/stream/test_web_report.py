import dataclasses
import io
import json
import threading
import time
from collections import Counter

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Loss, Status
from flawline.runtime.errors import FlawlineError
from flawline.runtime.stream import Box, Defect, Gap, JsonLinesSink, Ring, Summary, TextSink
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.web_report import WebReport
from flawline.runtime.web.components import Component
from flawline.runtime.web.defects import DefectMaker, Measures
from flawline.runtime.web.history import LineHistory
from flawline.runtime.web.inspector import InspectedStrip
from flawline.runtime.web.stitching import MapRows

MS = 1_000_000
SCRIPT = [
    BlockInfo(Status.OK, 0, 8, 1, 1 * MS),
    BlockInfo(Status.OK, 8, 8, 2, 2 * MS),
    BlockInfo(Status.LOST, 16, 8, reason="missing"),
    BlockInfo(Status.OK, 24, 8, 3, 4 * MS),
]


@pytest.fixture
def played(scripted_source):
    """A source, its acquisition and ring after the whole script; blocks and losses are given out."""
    source = scripted_source(SCRIPT)
    ring = Ring(8, (8, source.width), "block")
    acquisition = Acquisition(source, ring, threading.Event())
    acquisition.run()
    items = []
    while (item := ring.take()) is not None:
        items.append(item)
        if not isinstance(item, Loss):
            ring.release(item)
    return source, acquisition, ring, items


def strip(first_line: int, lines: int, *, masked_rows: int = 0, flagged_rows: int = 0) -> InspectedStrip:
    rows = lines // 4
    mask = np.ones((rows, 6), bool)
    mask[:masked_rows] = False
    flagged = np.arange(rows) < flagged_rows
    edge = np.zeros(lines, np.float32)
    return InspectedStrip(
        first_line,
        first_line + lines,
        MapRows(first_line // 4, np.zeros((rows, 6), np.float32), mask, flagged),
        edge,
        edge + 24,
        np.zeros((lines, 24), np.uint8),
        {"network": 3 * MS, "kernel": 1 * MS},
    )


def defect(latency_ms: int, *, gate_mm: float | None = None) -> Defect:
    """The defect on lines 4 to 7, told so long after they came; the web runs by 1 mm each millisecond."""
    history = LineHistory(100)
    for line in range(0, 16, 8):
        history.arrived(line, 8, 1, (line + 8) * MS)
    make = DefectMaker(
        map_stride=4,
        width=24,
        threshold=5.0,
        p_value=lambda score: 0.25,
        history=history,
        measures=Measures(float, 1.0, strip_mm=8.0, gate_mm=gate_mm),
    )
    region = Component(1, 1, 1, 1, 1, 9.0, 1, 1, 9.0, flagged=True, open=False, continued=False)
    return make(region, now_ns=(8 + latency_ms) * MS)


def account(report: WebReport, item: InspectedStrip, *, rejected: bool, since_ms: float) -> None:
    start_ns = time.monotonic_ns() - 5 * MS
    arrival_ns = start_ns - round(since_ms * MS)
    report.strip(
        dataclasses.replace(item, start_ns=start_ns),
        rejected=rejected,
        arrival_time_ns=arrival_ns,
        complete_time_ns=arrival_ns + 30 * MS,
        label_ns=MS // 2,
    )


def test_the_account_of_a_web_adds_up(played, list_sink):
    source, acquisition, ring, items = played
    report = WebReport([list_sink], 4, millimetres=lambda line: 0.5 * line)
    for item in items:
        if isinstance(item, Loss):
            report.loss(item, item.first_line, item.lines)
        else:
            report.received(item.info.lines)
    for one in (defect(20, gate_mm=10.0), defect(30, gate_mm=1000.0), defect(40)):
        report.defect(one)
    account(report, strip(0, 16, flagged_rows=1), rejected=True, since_ms=50)
    account(report, strip(24, 8, masked_rows=2), rejected=False, since_ms=50)
    report.bad_strip(32, 8, FlawlineError("not finite"))
    report.close()
    summary = report.summary("end", source, acquisition, ring, {"reversed_lines": 7})
    assert summary.lines_received + sum(summary.lines_lost.values()) == summary.lines_sent == 32
    assert (summary.strips, summary.rejects, summary.bad_strips) == (2, 1, 1)
    assert (summary.defects, summary.late_defects) == (3, 1)
    assert (summary.lines_scored, summary.lines_masked, summary.lines_flagged) == (24, 8, 4)
    assert (summary.gaps, summary.gap_lines, summary.gap_mm) == (2, 16, 8.0)
    assert summary.source_counters["reversed_lines"] == 7
    assert summary.source_counters["timeouts"] == 0
    assert list_sink.events[-1] == summary


def test_times_run_from_the_last_line_of_the_strip_and_of_the_defect(played, list_sink):
    report = WebReport([list_sink], 4)
    for _ in range(100):
        account(report, strip(0, 16), rejected=False, since_ms=50)
        report.defect(defect(20))
    summary = report.summary("end", *played[:3])
    assert 54.9 < summary.latency_ms.p50 < 57
    assert summary.defect_latency_ms.max == 20
    stages = {stage: times.p50 for stage, times in summary.stages_ms.items()}
    assert list(stages) == ["context", "wait", "network", "kernel", "label", "sinks"]
    assert stages["context"] == pytest.approx(30, rel=0.01)
    assert stages["wait"] == pytest.approx(20, rel=0.01)
    assert sum(summary.stage_shares.values()) == pytest.approx(1)
    assert summary.stage_shares["network"] == pytest.approx(3 / 55, rel=0.05)


def test_a_gap_says_which_lines_of_the_web_nobody_saw(list_sink):
    report = WebReport([list_sink], 4, millimetres=lambda line: 0.5 * line)
    report.loss(Loss(1000, Counter(missing=10)), 400, 10)
    report.loss(Loss(2000, Counter(missing=10), "while the web ran back"), 800, 0)
    first, second = list_sink.of(Gap)
    assert (first.first_line, first.lines) == (1000, 10)
    assert (first.unscored_first_line, first.unscored_lines) == (400, 10)
    assert (first.first_mm, first.length_mm) == (200.0, 5.0)
    assert (second.lines, second.unscored_lines, second.first_mm, second.length_mm) == (10, 0, 400.0, 0.0)


def test_an_outage_told_in_parts_is_one_gap_until_something_is_scored(played, list_sink):
    report = WebReport([list_sink], 4)
    for line in range(100, 200, 10):
        report.loss(Loss(line, Counter(lost=10)), line, 10)
    report.bad_strip(200, 8, FlawlineError("not finite"))
    report.loss(Loss(300, Counter(lost=10)), 300, 10)
    account(report, strip(310, 16), rejected=False, since_ms=1)
    report.loss(Loss(326, Counter(lost=10)), 305, 10)
    summary = report.summary("end", *played[:3])
    assert (summary.gaps, summary.gap_lines) == (3, 128)
    assert len(list_sink.of(Gap)) == 13


def test_nothing_that_only_frames_have_is_told_of_a_web(played):
    file = io.BytesIO()
    report = WebReport([JsonLinesSink(file)], 4)
    report.summary("stopped", *played[:3])
    (summary,) = map(json.loads, file.getvalue().splitlines())
    assert not {"frames", "bad_frames"} & set(summary)
    assert (summary["strips"], summary["latency_ms"], summary["gap_mm"]) == (0, None, None)


def test_text_says_what_became_of_the_web(played):
    lines = []
    report = WebReport([TextSink(lines.append)], 4, millimetres=lambda line: 0.5 * line)
    report.defect(defect(20, gate_mm=10.0))
    report.loss(Loss(16, Counter(missing=8)), 16, 8)
    account(report, strip(0, 16, flagged_rows=1), rejected=True, since_ms=50)
    report.summary("end", *played[:3])
    assert lines[0] == (
        "defect  x 4 line 4 size 4 x 4 px (4.0 mm across, 0.004 m along)  peak 9, threshold 5, p 0.25  20.0 ms, "
        "near a gap or an end, LATE"
    )
    assert "strips  1 scored, 1 rejected, 0 bad; 1 defects, 1 of them late" in lines
    assert "web     0 lines masked, 4 flagged; 1 gaps of 8 lines (0.004 m)" in lines
    assert any(line.startswith("defects   p50 20.00") for line in lines)


def test_a_sink_that_fails_does_not_stop_the_others(played, list_sink):
    class Full:
        def emit(self, event):
            raise OSError("disk full")

        def close(self):
            pass

    report = WebReport([Full(), list_sink], 4)
    report.defect(defect(20))
    summary = report.summary("end", *played[:3])
    assert summary.events_failed == 1
    assert "disk full" in summary.troubles[0]
    assert [type(event) for event in list_sink.events] == [Defect, Summary]
    assert list_sink.events[0].box == Box(4, 4, 4, 4)
