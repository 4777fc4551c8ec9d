"""A replay, whose reads end in a lost camera when the test takes it away, stands for a camera."""

import time

import numpy as np
import pytest

from flawline.runtime.cameras import Status, open_source
from flawline.runtime.cameras.reconnecting import ReconnectingSource
from flawline.runtime.cameras.source import CameraLostError
from flawline.runtime.errors import InputError

RATE = 2000


class Plug:
    """Opens the replay of a web while it is in; pulled out, an open replay raises as a camera does that is gone."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.is_in = True
        self.opens = False  # what is not in can be opened all the same
        self.attempts_ns: list[int] = []
        self.closed = 0

    def __call__(self):
        self.attempts_ns.append(time.monotonic_ns())
        if not self.is_in and not self.opens:
            raise InputError(f"{self.spec} does not answer")
        source = open_source(self.spec)
        read, close = source.read, source.close

        def plugged_read(into, timeout_s):
            if not self.is_in:
                raise CameraLostError("somebody has pulled the plug")
            return read(into, timeout_s)

        def counted_close():
            self.closed += 1
            close()

        source.read, source.close = plugged_read, counted_close
        return source


@pytest.fixture
def plug(web) -> Plug:
    return Plug(f"replay:{web[0]}?line_rate={RATE}&block=10&loop=forever")


def play(source, seconds: float) -> list:
    """What the reads of so many seconds gave, timeouts left out."""
    buffer = np.empty((10, 24), np.uint8)
    end = time.monotonic() + seconds
    infos = []
    while time.monotonic() < end:
        info = source.read(buffer, 0.02)
        if info.status is not Status.TIMEOUT:
            infos.append(info)
    return infos


def test_gap_is_the_time_away_and_lines_are_numbered_on(plug):
    source = ReconnectingSource(plug, "camera", first_pause_s=0.01, longest_pause_s=0.1)
    source.open()
    infos = play(source, 0.2)
    plug.is_in = False
    infos += play(source, 1.5)
    # Known while the camera is still away, but not told with every read.
    reports = [info for info in infos if info.status is Status.LOST]
    assert len(reports) == 1
    assert reports[0].lines > RATE * 0.9
    plug.is_in = True
    infos += play(source, 1.0)
    source.close()
    assert plug.closed == 2

    line = 0
    for info in infos:
        assert info.first_line == line
        line += info.lines
    assert source.counters["lines_sent"] == line
    assert source.counters["reconnects"] == 1
    received = [info for info in infos if info.status is Status.OK]
    lost = [info for info in infos if info.status is Status.LOST]
    assert {info.reason for info in lost} == {"camera_lost"}
    assert "pulled the plug" in lost[0].detail
    assert "does not answer" in lost[-1].detail
    # Exact by construction, but for the block that the camera had begun and the grain of lines: by time, nothing is missing.
    seconds = (infos[-1].arrival_time_ns - infos[0].arrival_time_ns) / 1e9
    assert line - 10 == pytest.approx(seconds * RATE, abs=30)
    times = [info.camera_time_ns for info in infos]
    assert times == sorted(times)
    # Past the gap a line's time is still that of its number.
    assert (received[-1].camera_time_ns - received[0].camera_time_ns) / 1e9 == pytest.approx(
        (received[-1].first_line - received[0].first_line) / RATE, abs=30 / RATE
    )


def test_pauses_grow_up_to_the_longest(plug):
    source = ReconnectingSource(plug, "camera", first_pause_s=0.02, longest_pause_s=0.08)
    source.open()
    play(source, 0.05)
    plug.is_in = False
    play(source, 0.5)
    source.close()
    pauses = np.diff(plug.attempts_ns[1:]) / 1e9
    assert len(pauses) >= 4
    assert np.all(pauses >= np.array([0.02, 0.04] + [0.08] * (len(pauses) - 2)))
    assert source.counters["reconnect_attempts"] == len(plug.attempts_ns) - 1
    assert source.counters["reconnects"] == 0


def test_rate_is_measured_where_none_was_asked_for(web):
    plug = Plug(f"replay:{web[0]}?block=10&loop=forever&line_rate={RATE}")
    source = ReconnectingSource(lambda: _WithoutRate(plug()), "camera", first_pause_s=0.01)
    source.open()
    assert source.line_rate is None
    play(source, 0.5)
    plug.is_in = False
    lost = play(source, 1.2)
    source.close()
    assert {info.status for info in lost} == {Status.LOST}
    seconds = (lost[-1].arrival_time_ns - source._lost_ns) / 1e9
    assert sum(info.lines for info in lost) == pytest.approx(seconds * RATE, rel=0.25)


def test_camera_of_unknown_rate_leaves_a_gap_of_a_block(plug):
    source = ReconnectingSource(lambda: _WithoutRate(plug()), "camera", first_pause_s=0.01)
    source.open()
    assert source.read(np.empty((10, 24), np.uint8), 0).status is Status.TIMEOUT
    plug.is_in = False
    assert play(source, 0.1) == []
    plug.is_in = True
    infos = play(source, 0.2)
    source.close()
    assert (infos[0].status, infos[0].lines, infos[0].first_line) == (Status.LOST, 10, 0)
    assert "rate is unknown" in infos[0].detail
    assert (infos[1].status, infos[1].first_line) == (Status.OK, 10)
    assert source.counters["reconnects"] == 1


def test_camera_that_comes_back_wider_ends_the_stream(plug, web, tmp_path):
    source = ReconnectingSource(plug, "camera", first_pause_s=0.01)
    source.open()
    play(source, 0.05)
    plug.is_in = False
    play(source, 0.05)
    plug.spec = plug.spec.replace("block=10", "block=11")
    plug.is_in = True
    with pytest.raises(InputError, match=r"came back with blocks \(11, 24\); expected \(10, 24\)"):
        play(source, 1.0)
    source.close()
    assert plug.closed == 2


def test_without_attempts_the_loss_ends_the_stream(plug):
    source = ReconnectingSource(plug, "camera", longest_pause_s=0)
    source.open()
    play(source, 0.05)
    plug.is_in = False
    with pytest.raises(CameraLostError, match="pulled the plug"):
        play(source, 0.2)
    source.close()


def test_camera_that_does_not_start_at_first_is_refused(plug):
    source = ReconnectingSource(plug, "camera")
    source.open()
    plug.is_in = False
    with pytest.raises(InputError, match="pulled the plug"):
        play(source, 0.2)
    source.close()


def test_camera_that_opens_and_does_not_start_is_tried_ever_more_rarely_and_costs_no_block(plug):
    source = ReconnectingSource(lambda: _WithoutRate(plug()), "camera", first_pause_s=0.02, longest_pause_s=0.08)
    source.open()
    assert source.read(np.empty((10, 24), np.uint8), 0).status is Status.TIMEOUT
    plug.is_in, plug.opens = False, True
    assert play(source, 0.5) == []
    assert (source.counters["reconnects"], source.counters["lines_sent"]) == (0, 0)
    pauses = np.diff(plug.attempts_ns[1:]) / 1e9
    assert len(pauses) >= 3
    assert np.all(pauses >= np.array([0.02, 0.04] + [0.08] * (len(pauses) - 2)))
    plug.is_in = True
    assert [(info.status, info.lines) for info in play(source, 0.3)[:2]] == [(Status.LOST, 10), (Status.OK, 10)]
    assert source.counters["reconnects"] == 1
    source.close()


def test_time_before_the_first_read_is_no_loss(plug):
    source = ReconnectingSource(plug, "camera", first_pause_s=0.01)
    source.open()
    time.sleep(1.0)  # while a detector is loaded
    assert source.read(np.empty((10, 24), np.uint8), 0).status is Status.TIMEOUT
    plug.is_in = False
    assert play(source, 0.1) == []
    plug.is_in = True
    infos = play(source, 0.3)
    source.close()
    assert infos[0].status is Status.LOST
    assert infos[0].lines < 0.9 * RATE


class _WithoutRate:
    """A source that does not say at which rate it runs."""

    def __init__(self, source) -> None:
        self._source = source
        self.line_rate = None

    def __getattr__(self, name):
        return getattr(self._source, name)
