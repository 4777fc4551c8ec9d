"""Frames as a library gives them, from a device that stands for one."""

import time
from collections.abc import Iterable

import numpy as np
import pytest

from flawline.runtime.cameras import CameraLostError, Status
from flawline.runtime.cameras.features import CameraOptions, FrameFormat
from flawline.runtime.cameras.frames import CameraFrame, FrameSource, view

FORM = FrameFormat(4, 16, 1)


class ScriptedDevice:
    """Gives frames of a script: ids, and times of the camera in nanoseconds."""

    def __init__(self, frames: Iterable[tuple[int, int]] = (), start: str = "") -> None:
        self.statistics: dict[str, int] = {}
        self._frames = iter(frames)
        self._start = start
        self.released = 0
        self.stopped: list[bool] = []

    def open(self) -> FrameFormat:
        return FORM

    def start(self) -> None:
        if self._start:
            raise CameraLostError(self._start)

    def fetch(self, timeout_s: float) -> CameraFrame | None:
        frame = next(self._frames, None)
        if frame is None:
            time.sleep(timeout_s)
            return None
        return CameraFrame(*frame, np.zeros((4, 16), np.uint8), self._release)

    def stop(self, is_lost: bool) -> None:
        self.stopped.append(is_lost)

    def _release(self) -> None:
        self.released += 1


def read_all(source: FrameSource) -> list:
    buffer = np.zeros((4, 16), np.uint8)
    infos = []
    while (info := source.read(buffer, 0.001)).status is not Status.TIMEOUT:
        infos.append(info)
    return infos


def opened(device: ScriptedDevice, options: CameraOptions = CameraOptions()) -> FrameSource:  # noqa: B008
    source = FrameSource(device, "camera", options)
    source.open()
    return source


@pytest.mark.parametrize("has_clock", [True, False])
def test_camera_that_counts_anew_is_inspected_on(has_clock):
    ids = [*range(1, 600), *range(400)]
    device = ScriptedDevice((number, index * 1000 + 1 if has_clock else 0) for index, number in enumerate(ids))
    source = opened(device)
    infos = read_all(source)
    received = [info for info in infos if info.status is Status.OK]
    # Without a clock some frames pass until it is clear that they are no repeated ones; they are accounted for.
    assert len(received) == len(ids) - (0 if has_clock else 3)
    assert source.counters["lines_sent"] == 4 * len(ids) == sum(info.lines for info in infos)
    assert source.counters["frames_missing"] == len(ids) - len(received)
    assert (source.counters["frame_id_jumps"], source.counters["frames_repeated"]) == (1, 0)
    assert device.released == len(ids)


def test_camera_that_does_not_count_is_inspected_and_that_is_told():
    source = opened(ScriptedDevice((0, index + 1) for index in range(50)))
    assert [info.status for info in read_all(source)] == [Status.OK] * 50
    assert source.counters["frames_uncounted"] == 49


class SteadyDevice(ScriptedDevice):
    """Makes a frame every 10 ms by a clock of its own, whether it is fetched or not."""

    def start(self) -> None:
        self._start_ns = time.monotonic_ns()
        self.made = 0

    def fetch(self, timeout_s: float) -> CameraFrame | None:
        self.made += 1
        age_ns = self.made * 10_000_000
        time.sleep(max(0.0, (self._start_ns + age_ns - time.monotonic_ns()) / 1e9))
        return CameraFrame(self.made, 10**15 + age_ns, np.zeros((4, 16), np.uint8), self._release)


def test_frame_that_waited_in_the_library_is_here_since_it_came():
    source = opened(SteadyDevice())
    buffer = np.zeros((4, 16), np.uint8)
    for _ in range(20):
        source.read(buffer, 1)
    time.sleep(0.25)
    read_ns = time.monotonic_ns()
    infos = [source.read(buffer, 1) for _ in range(10)]
    ages_ms = np.array([(read_ns - info.arrival_time_ns) / 1e6 for info in infos])
    assert ages_ms[0] > 200
    assert -np.diff(ages_ms) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("stands", [0, 5])
def test_frame_is_here_no_sooner_than_its_buffer_was_free(stands):
    """A clock that runs at a wrong rate, or stands, cannot make frames old."""
    start_ns = time.monotonic_ns()
    frames = ((index, stands or index // 1000 + 1) for index in range(1, 20_000))
    infos = read_all(opened(ScriptedDevice(frames), CameraOptions(buffers=2)))
    passed = np.array([info.arrival_time_ns for info in infos]) - start_ns
    assert np.all(np.diff(passed) >= 0)
    assert len(np.unique(passed)) > len(infos) / 3


def test_silent_camera_is_lost_and_not_asked_any_more():
    device = ScriptedDevice([(1, 1)])
    source = opened(device, CameraOptions(silence=0.05))
    assert len(read_all(source)) == 1
    time.sleep(0.06)
    with pytest.raises(CameraLostError, match="silent for 0"):
        source.read(np.zeros((4, 16), np.uint8), 0.01)
    source.close()
    assert device.stopped == [True]


def test_view_refuses_a_buffer_that_is_too_short():
    memory = np.arange(3 * 10, dtype=np.uint8)
    grey = view(memory, FrameFormat(3, 8, 1), 10, is_bgr=False)
    np.testing.assert_array_equal(grey, memory.reshape(3, 10)[:, :8])
    colours = view(memory, FrameFormat(3, 3, 3), 10, is_bgr=True)
    np.testing.assert_array_equal(colours[1, 1], [15, 14, 13])
    assert view(memory[:27], FrameFormat(3, 8, 1), 10, is_bgr=False) is None
    assert view(memory, FrameFormat(3, 8, 1), 7, is_bgr=False) is None
