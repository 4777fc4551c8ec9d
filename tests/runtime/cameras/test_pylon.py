"""Basler's library with its emulated cameras: all of its way but the wire."""

import contextlib
import time

import numpy as np
import pytest

from flawline.runtime.cameras import Status, open_source
from flawline.runtime.cameras.features import CameraOptions, FeatureError
from flawline.runtime.cameras.frames import FrameSource
from flawline.runtime.cameras.pylon import PylonDevice, PylonFeatures, _ticks_per_s, discover
from flawline.runtime.cameras.reconnecting import ReconnectingSource
from flawline.runtime.cameras.source import opened
from flawline.runtime.errors import InputError
from flawline.runtime.images import write_image

pytestmark = pytest.mark.usefixtures("pylon_cameras")

SMALL = "width=64&block=16&feature.ExposureTimeAbs=100"


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
def test_images_of_a_folder_come_bit_for_bit(tmp_path, play, shape):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    for index, image in enumerate(images):
        write_image(tmp_path / f"{index}.png", image)
    pixel_format = "Mono8" if len(shape) == 2 else "RGB8Packed"
    features = f"feature.TestImageSelector=Off&feature.ImageFilename={tmp_path}&feature.ImageFileMode=On"
    spec = f"pylon:any?width=64&block=48&pixel_format={pixel_format}&{features}&line_rate=4800"
    with contextlib.closing(open_source(spec)) as source:
        assert (source.width, source.block_lines, source.channels) == (64, 48, 3 if len(shape) == 3 else 1)
        blocks = [pixels for _, pixels in play(source, 5 * 48)]
    assert {block.tobytes() for block in blocks} == {image.tobytes() for image in images}
    order = [[image.tobytes() for image in images].index(block.tobytes()) for block in blocks]
    assert np.all(np.diff(order) % 5 == 1)


def test_colours_sent_as_bgr_arrive_as_rgb(tmp_path, play):
    image = np.random.default_rng(0).integers(0, 256, (16, 64, 3), np.uint8)
    write_image(tmp_path / "0.png", image)
    features = f"feature.TestImageSelector=Off&feature.ImageFilename={tmp_path}&feature.ImageFileMode=On"
    with contextlib.closing(open_source(f"pylon:any?{SMALL}&pixel_format=BGR8Packed&{features}")) as source:
        np.testing.assert_array_equal(play(source, 16)[0][1], image)


def test_frames_that_failed_are_incomplete_and_accounted_for(play):
    failures = "feature.ForceFailedBufferCount=3&feature.ForceFailedBuffer=1"
    with contextlib.closing(open_source(f"pylon:any?{SMALL}&{failures}")) as source:
        infos = [info for info, _ in play(source, 160)]
        counters = dict(source.counters)
    assert [info.status for info in infos] == [Status.INCOMPLETE] * 3 + [Status.OK] * 7
    assert infos[0].reason == "incomplete_frame"
    assert "incompletely grabbed" in infos[0].detail
    assert [info.first_line for info in infos] == list(range(0, 160, 16))
    assert counters["lines_sent"] == 160
    assert (counters["frames_received"], counters["frames_incomplete"]) == (7, 3)


def test_line_rate_is_that_of_the_camera(play):
    with contextlib.closing(open_source(f"pylon:any?{SMALL}&line_rate=1600")) as source:
        infos = [info for info, _ in play(source, 1600)]
    seconds = (infos[-1].arrival_time_ns - infos[0].arrival_time_ns) / 1e9
    assert (1600 - 16) / seconds == pytest.approx(1600, rel=0.15)


def test_reader_that_stalls_misses_nothing_that_the_account_does_not_show(play):
    with contextlib.closing(open_source(f"pylon:any?{SMALL}&line_rate=16000&buffers=4")) as source:
        play(source, 160)
        time.sleep(0.5)
        infos = [info for info, _ in play(source, 1600)]
        counters = dict(source.counters)
    sent = sum(counters[f"frames_{name}"] for name in ("received", "incomplete", "missing", "changed")) * 16
    assert counters["lines_sent"] == sent == infos[-1].first_line + infos[-1].lines


def test_removed_camera_comes_back_and_its_absence_is_a_gap(play):
    devices = []

    def make():
        options = CameraOptions(64, 16, 1600, feature={"ExposureTimeAbs": "100"})
        devices.append(PylonDevice("any", options, "pylon:any"))
        return opened(FrameSource(devices[-1], "pylon:any", options))

    source = ReconnectingSource(make, "pylon:any", first_pause_s=0.05)
    source.open()
    with contextlib.closing(source):
        play(source, 160)
        devices[0]._camera.DestroyDevice()  # as when somebody pulls the plug
        reads = [info for info, _ in play(source, 1600)]
        assert source.counters["reconnects"] == 1
        assert source.counters["frames_received"] > 10
    assert len(devices) == 2
    assert [info.reason for info in reads if info.status is Status.LOST].count("camera_lost") >= 1
    assert reads[-1].status is Status.OK


def test_silent_camera_is_opened_again_if_that_is_asked_for():
    silent = f"pylon:any?{SMALL}&feature.TriggerMode=On&line_rate=1000"
    buffer = np.empty((16, 64), np.uint8)
    with contextlib.closing(open_source(silent)) as source:
        assert {source.read(buffer, 0.1).status for _ in range(5)} == {Status.TIMEOUT}
        assert source.counters["reconnects"] == 0
    with contextlib.closing(open_source(f"{silent}&silence=0.2")) as source:
        end = time.monotonic() + 10
        while (info := source.read(buffer, 0.1)).status is Status.TIMEOUT:
            assert time.monotonic() < end
        assert source.counters["reconnect_attempts"] >= 1
        # It has not come back: it sends nothing.
        assert source.counters["reconnects"] == 0
    assert info.status is Status.LOST
    assert "silent for" in info.detail


def test_cameras_are_found_and_opened_by_serial_number():
    found = discover()
    assert [camera.spec for camera in found] == ["pylon:0815-0000", "pylon:0815-0001"]
    assert found[0].model == "Basler Emulation"
    with contextlib.closing(open_source(f"{found[1].spec}?{SMALL}")) as source:
        assert source.width == 64


def test_camera_whose_clock_has_no_frequency_counts_nanoseconds():
    class Ticks:
        """Stands for the features of a camera, whose emulation cannot give a wrong frequency."""

        def get(self, name: str) -> str:
            return {"GevTimestampTickFrequency": "0"}[name]

    assert _ticks_per_s(Ticks()) == 1_000_000_000


def test_library_that_fails_to_look_for_cameras_is_told_in_one_line(monkeypatch):
    from pypylon import genicam, pylon

    def fail(factory: object) -> list[object]:
        raise genicam.RuntimeException("the transport layer is out of order")

    monkeypatch.setattr(pylon.TlFactory, "EnumerateDevices", fail)
    with pytest.raises(InputError, match=r"pylon:any cannot be set up: the transport layer is out of order$"):
        open_source("pylon:any")
    with pytest.raises(InputError, match="cannot be looked for"):
        discover()


def test_missing_feature_is_told_by_its_name():
    from pypylon import pylon

    camera = pylon.InstantCamera(pylon.TlFactory.GetInstance().CreateFirstDevice())
    camera.Open()
    with pytest.raises(FeatureError, match="not found"):
        PylonFeatures(camera).get("Hight")
    camera.Close()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pylon:4711", r"pylon:4711 does not answer; there is pylon:0815-0000, pylon:0815-0001"),
        ("pylon:any?width=9999", "refuses Width=9999; Value = 9999 must be equal or smaller than Max = 4096$"),
        ("pylon:any?pixel_format=Mono12", "sends Mono12; expected one of Mono8, .*: add pixel_format=Mono8"),
        ("pylon:any?pixel_format=Grey", "refuses PixelFormat=Grey; expected one of Mono8, Mono10"),
        ("pylon:any?feature.Exposuretime=9", r"no feature Exposuretime; did you mean ExposureTime"),
        ("pylon:any?feature.ExposureTimeAbs=fast", "refuses ExposureTimeAbs=fast; Node 'ExposureTimeAbs'"),
        ("pylon:any?buffers=1", "buffers=1; expected blocks that the library may hold"),
    ],
)
def test_what_the_camera_refuses_is_said_in_one_line(spec, message):
    with pytest.raises(InputError, match=message) as raised:
        open_source(spec)
    assert "\n" not in str(raised.value)
