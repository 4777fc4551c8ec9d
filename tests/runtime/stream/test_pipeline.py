import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Status, open_source
from flawline.runtime.errors import DeviceError, FlawlineError, InputError, ResourceError
from flawline.runtime.stream import POLICIES, Box, BoxMm, Defect, Gap, JsonLinesSink, Pitch, Summary, run
from flawline.runtime.stream.pipeline import WARMUP_FRAMES


def ok(first_line: int, lines: int = 8) -> BlockInfo:
    return BlockInfo(Status.OK, first_line, lines, first_line * 1000, time.monotonic_ns())


def balance(summary: Summary) -> None:
    """The identity that must hold however a stream went."""
    assert summary.lines_received + sum(summary.lines_lost.values()) == summary.lines_sent
    assert summary.lines_sent == summary.source_counters["lines_sent"]


def test_frames_reach_the_detector_whole_and_in_order(web, fake_detector, list_sink):
    folder, pixels = web
    detector = fake_detector()
    summary = run(open_source(f"replay:{folder}?block=7"), detector, [list_sink], frame_lines=10)
    assert not np.any(detector.frames[:WARMUP_FRAMES])
    np.testing.assert_array_equal(np.concatenate(detector.frames[WARMUP_FRAMES:]), pixels[:90])
    assert (summary.ended, summary.frames, summary.rejects, summary.lines_scored) == ("end", 9, 0, 90)
    assert list_sink.events == [summary]
    balance(summary)


@pytest.mark.parametrize("policy", POLICIES)
def test_lines_balance_with_a_slow_detector_under_every_policy(web, fake_detector, list_sink, policy):
    detector = fake_detector(lambda number: time.sleep(0.01))
    source = open_source(f"replay:{web[0]}?block=4&loop=5")
    summary = run(source, detector, [list_sink], frame_lines=8, policy=policy, ring_blocks=2)
    balance(summary)
    if policy == "block":
        assert summary.lines_lost == {}
        assert summary.frames == 60
    else:
        reason = f"ring_{policy.replace('-', '_')}"
        assert set(summary.lines_lost) == {reason}
        gaps = list_sink.of(Gap)
        assert sum(gap.lines for gap in gaps) == summary.lines_lost[reason]
        # Every frame that was not scored lies in a reported stretch.
        unscored = set()
        for gap in gaps:
            unscored |= set(range(gap.unscored_first_line // 8, (gap.unscored_first_line + gap.unscored_lines) // 8))
        assert summary.frames >= 485 // 8 - len(unscored)


def test_defect_is_placed_on_the_web(fake_detector, list_sink, scripted_source):
    class Spotted(scripted_source):
        def read(self, into, timeout_s):
            info = super().read(into, timeout_s)
            if info.first_line == 32:
                into[3, 5] = 255
            return info

    source = Spotted([ok(line) for line in range(0, 64, 8)])
    summary = run(source, fake_detector(), [list_sink], frame_lines=16, pitch=Pitch(line_mm=0.5, pixel_mm=0.1))
    (defect,) = list_sink.of(Defect)
    assert (defect.frame, defect.first_line) == (2, 32)
    assert defect.box == Box(x=5, y=35, width=3, height=2)
    assert defect.box_mm == BoxMm(x=0.5, y=17.5, width=pytest.approx(0.3), height=1.0)
    assert (defect.peak, defect.frame_score, defect.threshold, defect.p_value) == (255, 255, 254, 0.5)
    assert defect.camera_time_ns == 40_000
    assert 0 <= defect.latency_ms <= summary.latency_ms.max
    assert (summary.rejects, summary.defects) == (1, 1)


def test_reject_without_a_region_is_reported_with_the_whole_frame(list_sink, scripted_source, fake_detector):
    class Regionless(fake_detector):
        def __call__(self, frame):
            result = super().__call__(frame)
            return type(result)(300.0, 254.0, 0.1, result.map, [], "none")

    run(scripted_source([ok(0)]), Regionless(), [list_sink], frame_lines=8)
    (defect,) = list_sink.of(Defect)
    assert defect.box == Box(0, 0, 24, 8)


def test_refused_frame_becomes_a_gap_and_the_stream_goes_on(web, fake_detector, list_sink):
    def fault(number: int) -> None:
        if number == 3:
            raise FlawlineError("the score is nan")

    detector = fake_detector(fault)
    summary = run(open_source(f"replay:{web[0]}"), detector, [list_sink], frame_lines=10)
    (gap,) = list_sink.of(Gap)
    assert (gap.first_line, gap.lines, gap.reasons, gap.detail) == (20, 10, {"bad_frame": 10}, "the score is nan")
    assert (summary.frames, summary.bad_frames, summary.lines_scored, summary.lines_received) == (8, 1, 80, 97)
    balance(summary)


def test_lost_lines_are_a_gap_in_lines_frames_and_millimetres(fake_detector, list_sink, scripted_source):
    script = [
        ok(0),
        BlockInfo(Status.LOST, 8, 3, reason="cable", detail="pulled"),
        BlockInfo(Status.INCOMPLETE, 11, 8),
        ok(19, 5),
        BlockInfo(Status.TIMEOUT),
        ok(26),  # two lines skipped without a word
        ok(20, 4),  # and a block again
        ok(34, 6),
    ]
    detector = fake_detector()
    source = scripted_source(script)
    summary = run(source, detector, [list_sink], frame_lines=8, pitch=Pitch(0.5, 0.1))
    # Losses in a row are one gap or several, as they came.
    gaps = list_sink.of(Gap)
    assert [line for gap in gaps for line in range(gap.first_line, gap.first_line + gap.lines)] == [
        *range(8, 19),
        24,
        25,
    ]
    assert gaps[0].detail == "pulled"
    assert gaps[0].first_mm == 4.0
    assert gaps[0].length_mm == gaps[0].lines * 0.5
    assert gaps[-1].reasons == {"skipped": 2}
    assert (gaps[-1].unscored_first_line, gaps[-1].unscored_lines) == (24, 8)
    assert {gap.unscored_first_line for gap in gaps[:-1]} == {8}
    assert summary.lines_lost == {"cable": 3, "incomplete": 8, "skipped": 2}
    assert (summary.frames, summary.lines_received) == (2, 27)
    assert [int(frame[0, 0]) for frame in detector.frames[WARMUP_FRAMES:]] == [0, 32]
    assert (summary.source_counters["timeouts"], summary.source_counters["repeated_blocks"]) == (1, 1)
    balance(summary)


def test_camera_that_does_not_begin_at_line_0(fake_detector, list_sink, scripted_source):
    source = scripted_source([ok(1003), ok(1011)])
    summary = run(source, fake_detector(), [list_sink], frame_lines=8)
    assert (summary.lines_sent, summary.lines_received, summary.lines_lost, summary.frames) == (16, 16, {}, 1)


def test_programming_error_comes_out_and_stops_the_acquisition(web, fake_detector, list_sink):
    def fault(number: int) -> None:
        if number == 2:
            raise ZeroDivisionError

    source = open_source(f"replay:{web[0]}?loop=forever&block=3")
    with pytest.raises(ZeroDivisionError):
        run(source, fake_detector(fault), [list_sink], frame_lines=10)
    source.close()


def test_source_that_fails_for_good_leaves_the_account(fake_detector, list_sink, scripted_source):
    source = scripted_source([ok(0), ok(8), FlawlineError("the camera is on fire")])
    with pytest.raises(FlawlineError, match="on fire"):
        run(source, fake_detector(), [list_sink], frame_lines=8)
    (summary,) = list_sink.of(Summary)
    assert (summary.ended, summary.frames) == ("source_failed", 2)
    balance(summary)


def test_gpu_that_fails_ends_the_stream_with_its_account(web, fake_detector, list_sink):
    def fault(number: int) -> None:
        if number == 3:
            raise DeviceError("the GPU fell off its bus")

    source = open_source(f"replay:{web[0]}?loop=forever&block=3")
    with pytest.raises(DeviceError, match="fell off"):
        run(source, fake_detector(fault), [list_sink], frame_lines=10)
    source.close()
    (summary,) = list_sink.of(Summary)
    assert (summary.ended, summary.frames, summary.bad_frames) == ("detector_failed", 2, 1)
    (gap,) = [gap for gap in list_sink.of(Gap) if "bad_frame" in gap.reasons]
    assert gap.detail == "the GPU fell off its bus"
    balance(summary)


def test_programming_error_in_the_source_comes_out(fake_detector, list_sink, scripted_source):
    with pytest.raises(KeyError):
        run(scripted_source([ok(0), KeyError("x")]), fake_detector(), [list_sink], frame_lines=8)


def test_web_that_does_not_fit_the_detector_is_refused_before_the_first_line(web, fake_detector, list_sink):
    def fault(number: int) -> None:
        raise InputError("frame is grey; this bundle takes RGB")

    source = open_source(f"replay:{web[0]}")
    with pytest.raises(InputError, match="takes RGB"):
        run(source, fake_detector(fault), [list_sink], frame_lines=8)
    source.close()
    assert source.counters["lines_sent"] == 0
    assert list_sink.events == []


@pytest.mark.parametrize("policy", POLICIES)
def test_stop_ends_an_endless_stream_with_its_account(web, fake_detector, list_sink, policy):
    stop = threading.Event()
    detector = fake_detector(lambda number: stop.set() if number == 5 else time.sleep(0.002))
    source = open_source(f"replay:{web[0]}?loop=forever&block=3")
    summary = run(source, detector, [list_sink], frame_lines=10, policy=policy, ring_blocks=3, stop=stop)
    source.close()
    assert (summary.ended, summary.frames) == ("stopped", 5)
    balance(summary)


def test_stop_ends_a_stream_without_lines(fake_detector, list_sink, scripted_source):
    class Silent(scripted_source):
        def read(self, into, timeout_s):
            time.sleep(0.001)
            return BlockInfo(Status.TIMEOUT)

    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    summary = run(Silent([]), fake_detector(), [list_sink], frame_lines=10, stop=stop)
    timer.join()
    assert (summary.ended, summary.lines_sent, summary.latency_ms, summary.line_rate_held) == ("stopped", 0, None, None)


def test_frame_limit_ends_the_stream(web, fake_detector, list_sink):
    source = open_source(f"replay:{web[0]}?loop=forever")
    summary = run(source, fake_detector(), [list_sink], frame_lines=10, max_frames=4)
    source.close()
    assert (summary.ended, summary.frames) == ("frame_limit", 4)
    balance(summary)


def test_full_disk_under_a_sink_is_counted_and_the_other_sinks_go_on(web, fake_detector, list_sink):
    def fault(number: int) -> None:
        if number > 0:
            raise FlawlineError("no")

    with Path("/dev/full").open("wb", buffering=0) as full:
        sinks = [JsonLinesSink(full), list_sink]
        summary = run(open_source(f"replay:{web[0]}"), fake_detector(fault), sinks, frame_lines=10)
    assert summary.events_failed == 9
    assert "No space left" in summary.troubles[0]
    assert len(list_sink.of(Gap)) == 9


def test_detector_that_stalls_loses_lines_but_no_count(web, fake_detector, list_sink):
    detector = fake_detector(lambda number: time.sleep(0.5 if number == 3 else 0))
    source = open_source(f"replay:{web[0]}?loop=20&block=8&line_rate=4000")
    summary = run(source, detector, [list_sink], frame_lines=16, policy="drop-oldest", ring_blocks=4)
    assert set(summary.lines_lost) == {"ring_drop_oldest"}
    assert summary.ring_peak_blocks == 4
    assert summary.stages_ms["network"].max == 0.001
    assert {"wait", "network", "sinks"} == set(summary.stages_ms)
    balance(summary)


@pytest.mark.parametrize("size", [{"frame_lines": 10, "ring_blocks": 10**9}, {"frame_lines": 10**12}])
def test_more_than_memory_holds_is_refused(web, fake_detector, size):
    source = open_source(f"replay:{web[0]}?block=65536")
    with pytest.raises(
        ResourceError,
        match=r"a ring of .* needs about [\d.]+ GB of memory and [\d.]+ GB are available; ask for fewer or smaller",
    ):
        run(source, fake_detector(), [], **size)
    source.close()
