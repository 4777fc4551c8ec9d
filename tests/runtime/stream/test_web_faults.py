"""Faults that come to the stream of a web: each becomes a gap, a count or an account, and no line is lost without a word."""

import time
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, CameraLostError, Status, open_source
from flawline.runtime.errors import DeviceError, FlawlineError, InputError
from flawline.runtime.images import write_image
from flawline.runtime.stream import POLICIES, Defect, Gap, Summary
from flawline.runtime.web.inspector import WebInspector
from tests.runtime.web_bundles import FLAW_THRESHOLD, ArraySource, balance, flawed, stream_web, told

WIDTH, LINES = 150, 1500
FLAWS = [(101, 5), (333, 42), (505, 100), (700, 62), (1004, 120), (1467, 26)]


@pytest.fixture
def pixels(texture) -> np.ndarray:
    return flawed(texture(LINES, WIDTH), FLAWS)


class Stalling(WebInspector):
    """Stands still for two seconds on its fourth block."""

    calls = 0

    def add(self, lines, first_line):
        self.calls += 1
        if self.calls == 4:
            time.sleep(2)
        return super().add(lines, first_line)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_detector_that_stalls_for_two_seconds_loses_what_the_policy_says(
    web_bundle, pixels, tmp_path, list_sink, policy
):
    write_image(tmp_path / "web.png", pixels)
    source = open_source(f"replay:{tmp_path / 'web.png'}?line_rate=6000&block=64&loop=12")
    try:
        summary = stream_web(
            web_bundle(),
            source,
            [list_sink],
            inspector_type=Stalling,
            threshold=FLAW_THRESHOLD,
            policy=policy,
            ring_blocks=16,
        )
    finally:
        source.close()
    balance(summary)
    assert (summary.ended, summary.lines_sent, summary.ring_peak_blocks) == ("end", 12 * LINES, 16)
    gaps = list_sink.of(Gap)
    if policy == "block":
        assert (summary.lines_lost, gaps, summary.defects) == ({}, [], 12 * len(FLAWS))
    else:
        reason = f"ring_{policy.replace('-', '_')}"
        # Two seconds at that rate, less what the ring holds.
        assert summary.lines_lost[reason] == pytest.approx(2 * 6000 - 16 * 64, abs=4000)
        assert set(summary.lines_lost) == {reason}
        assert sum(gap.unscored_lines for gap in gaps) == summary.gap_lines == summary.lines_lost[reason]
        assert 0 < summary.defects < 12 * len(FLAWS)
    assert summary.lines_scored == summary.lines_received


def test_a_strip_without_finite_scores_is_a_gap_and_the_stream_lives(web_bundle, pixels, list_sink):
    opened = web_bundle(fragile=True)
    pixels[800, 70] = 255
    summary = stream_web(opened, ArraySource(pixels), [list_sink], threshold=FLAW_THRESHOLD)
    gaps = list_sink.of(Gap)
    assert summary.bad_strips == len(gaps) > 0
    assert {line for gap in gaps for line in range(gap.first_line, gap.first_line + gap.lines)} >= {800}
    for gap in gaps:
        assert set(gap.reasons) == {"bad_strip"}
        assert "not finite" in gap.detail or "nan" in gap.detail
    assert summary.lines_scored + summary.gap_lines == summary.lines_received == LINES
    assert summary.defects == len(FLAWS)
    balance(summary)


def test_a_source_that_fails_for_good_leaves_an_account_and_the_defects_before(web_bundle, pixels, list_sink):
    script = [*(BlockInfo(Status.OK, line, 64) for line in range(0, 192, 64)), CameraLostError("the camera is gone")]
    with pytest.raises(CameraLostError, match="the camera is gone"):
        stream_web(web_bundle(), ArraySource(pixels, script), [list_sink], threshold=FLAW_THRESHOLD)
    (summary,) = list_sink.of(Summary)
    assert (summary.ended, summary.lines_received, summary.lines_scored) == ("source_failed", 192, 192)
    assert [defect.box.y // 100 for defect in list_sink.of(Defect)] == [1]
    balance(summary)


class GpuThatFails:
    """The scorer of an inspector as one whose GPU fails on a batch."""

    def __init__(self, scorer, batch: int) -> None:
        self._scorer, self._left = scorer, batch
        self.closed = False

    def batch(self, frames):
        self._left -= 1
        if self._left < 0:
            raise DeviceError("the GPU has fallen off the bus")
        return self._scorer.batch(frames)

    @property
    def timings_ns(self):
        return self._scorer.timings_ns

    def close(self) -> None:
        self._scorer.close()
        self.closed = True


def failing(fallback: bool) -> type[WebInspector]:
    class Failing(WebInspector):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.fallback = fallback
            self.failed = self._scorer = GpuThatFails(self._scorer, 3 + 10)  # the first three warm it up

    return Failing


def test_a_gpu_that_fails_ends_the_stream_with_a_gap_an_account_and_the_defects_before(web_bundle, pixels, list_sink):
    with pytest.raises(DeviceError, match="fallen off the bus"):
        stream_web(
            web_bundle(), ArraySource(pixels), [list_sink], threshold=FLAW_THRESHOLD, inspector_type=failing(False)
        )
    (summary,) = list_sink.of(Summary)
    (gap,) = [gap for gap in list_sink.of(Gap) if "bad_strip" in gap.reasons]
    assert (gap.unscored_first_line, gap.unscored_lines) == (320, 32)
    assert (summary.ended, summary.strips, summary.bad_strips) == ("detector_failed", 10, 1)
    assert [defect.box.y // 100 for defect in list_sink.of(Defect)] == [1]
    balance(summary)


def test_with_fallback_the_strip_and_all_that_follow_are_scored_on_the_cpu(web_bundle, pixels, list_sink):
    settings = {"threshold": FLAW_THRESHOLD}
    opened = web_bundle()
    stream_web(opened, ArraySource(pixels), [list_sink], **settings)
    expected = told(list_sink)
    list_sink.events.clear()
    summary = stream_web(opened, ArraySource(pixels), [list_sink], inspector_type=failing(True), **settings)
    for defect, other in zip(told(list_sink), expected, strict=True):
        assert defect["box"] == other["box"]
        assert defect["peak"] == pytest.approx(other["peak"], rel=1e-4)
    assert (summary.bad_strips, summary.lines_scored, summary.ended) == (0, LINES, "end")
    (trouble,) = summary.troubles
    assert trouble.endswith("has taken over: the GPU has fallen off the bus")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_with_fallback_a_gpu_that_cannot_be_had_is_done_without(web_bundle):
    opened = web_bundle()
    with pytest.raises(FlawlineError):
        WebInspector(opened, WIDTH, backend="tensorrt")
    with WebInspector(opened, WIDTH, backend="tensorrt", fallback=True) as inspector:
        assert inspector.backend in ("onnxruntime", "openvino")
        assert inspector.fallback_reason
    with pytest.raises(InputError, match="backend 'none' is unknown"):
        WebInspector(opened, WIDTH, backend="none", fallback=True)
