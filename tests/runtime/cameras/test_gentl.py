"""A GenTL producer with simulated cameras, through harvesters."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flawline.runtime.cameras import Status, open_source
from flawline.runtime.cameras.features import CameraOptions, FeatureError
from flawline.runtime.cameras.frames import FrameSource
from flawline.runtime.cameras.gentl import PRODUCERS, GenTLDevice, GenTLFeatures, GenTLOptions, _pixels, discover
from flawline.runtime.cameras.reconnecting import ReconnectingSource
from flawline.runtime.cameras.source import opened
from flawline.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("gentl_cameras")


def test_blocks_are_the_ramp_that_the_camera_draws(play):
    with contextlib.closing(open_source("gentl:SN_InterfaceA_0?width=256&block=32")) as source:
        assert (source.width, source.block_lines, source.channels) == (256, 32, 1)
        reads = play(source, 320)
        counters = dict(source.counters)
    assert {info.status for info, _ in reads} == {Status.OK}
    steps = np.arange(256) + np.arange(32)[:, None]
    for _, block in reads:
        np.testing.assert_array_equal(block, (steps + block[0, 0]).astype(np.uint8))
    assert len({block[0, 0] for _, block in reads}) == len(reads)
    assert (counters["lines_sent"], counters["frames_received"], counters["frames_missing"]) == (320, 10, 0)


def test_colours_are_in_the_order_of_rgb(play):
    blocks = {}
    for pixel_format in ("RGB8", "BGR8"):
        spec = f"gentl:SN_InterfaceA_1?width=256&block=32&pixel_format={pixel_format}"
        with contextlib.closing(open_source(spec)) as source:
            blocks[pixel_format] = play(source, 32)[0][1]
    assert blocks["RGB8"].shape == (32, 256, 3)
    # The simulated camera counts along the line in green alone, whatever the order.
    green = blocks["RGB8"][0, :, 1].astype(int)
    assert np.all(np.diff(green) % 256 == 1)
    assert np.ptp(blocks["RGB8"][0, :, 0]) == 0
    np.testing.assert_array_equal(
        blocks["RGB8"][..., 1] - blocks["RGB8"][0, 0, 1], blocks["BGR8"][..., 1] - blocks["BGR8"][0, 0, 1]
    )


def test_clock_that_starts_again_every_second_is_carried_on(play):
    with contextlib.closing(open_source("gentl:any?width=64&block=16")) as source:
        infos = [info for info, _ in play(source, 16 * 300)]
        assert source.counters["clock_restarts"] >= 1
    camera_s = (infos[-1].camera_time_ns - infos[0].camera_time_ns) / 1e9
    host_s = (infos[-1].arrival_time_ns - infos[0].arrival_time_ns) / 1e9
    assert camera_s == pytest.approx(host_s, abs=0.1)


def test_stopped_camera_is_opened_again_with_a_gap(play):
    devices = []

    def make():
        devices.append(GenTLDevice("SN_InterfaceB_0", GenTLOptions(width=64, block=16), "gentl:SN_InterfaceB_0"))
        return opened(FrameSource(devices[-1], "gentl:SN_InterfaceB_0"))

    source = ReconnectingSource(make, "gentl:SN_InterfaceB_0", first_pause_s=0.05)
    source.open()
    with contextlib.closing(source):
        play(source, 160)
        devices[0]._acquirer.stop()
        infos = [info for info, _ in play(source, 16 * 400)]
        assert source.counters["reconnects"] == 1
    assert "camera_lost" in {info.reason for info in infos}
    assert infos[-1].status is Status.OK


def test_cameras_are_found_behind_the_producers_of_the_environment(monkeypatch):
    assert [camera.serial for camera in discover()] == [f"SN_Interface{name}" for name in ("A_0", "A_1", "B_0", "B_1")]
    monkeypatch.delenv(PRODUCERS)
    assert discover() == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gentl:4711", "gentl:4711 does not answer; there is gentl:SN_InterfaceA_0, gentl:SN_InterfaceA_1"),
        ("gentl:any?width=9999", "refuses Width=9999; Value = 9999 must be equal or smaller than Max = 4096$"),
        ("gentl:any?pixel_format=Mono12", "sends Mono12; expected one of Mono8, .*: add pixel_format=Mono8"),
        ("gentl:any?pixel_format=Grey", "refuses PixelFormat=Grey; expected one of Mono8, "),
        ("gentl:any?feature.Widht=9", "has no feature Widht; did you mean Width"),
        ("gentl:any?producer=/nowhere.cti", r"producer /nowhere.cti does not exist; expected the .cti file"),
        (f"gentl:any?producer={__file__}", "cannot be loaded, or has no camera"),
        ("gentl:any?line_rate=100", "has no line rate"),
    ],
)
def test_what_the_camera_refuses_is_said_in_one_line(spec, message):
    with pytest.raises(InputError, match=message) as raised:
        open_source(spec)
    assert "\n" not in str(raised.value)


def test_producer_is_named_in_the_spec_or_by_the_environment(monkeypatch, play):
    import genicam

    monkeypatch.delenv(PRODUCERS)
    with pytest.raises(InputError, match=r"has no producer; expected producer=FILE\.cti"):
        open_source("gentl:any")
    producer = Path(genicam.__file__).with_name("TLSimu.cti")
    with contextlib.closing(open_source(f"gentl:any?producer={producer}&width=64&block=16")) as source:
        assert play(source, 16)[0][0].status is Status.OK


def test_buffer_without_an_image_is_no_frame_of_the_stream():
    payload = SimpleNamespace(components=[])
    pixels, detail = _pixels(SimpleNamespace(payload=payload, payload_type=9))
    assert (pixels.size, detail) == (0, "a payload of type 9 without an image")


def test_missing_feature_is_told_by_its_name():
    device = GenTLDevice("any", GenTLOptions(), "gentl:any")
    device.open()
    with pytest.raises(FeatureError, match="not existing"):
        GenTLFeatures(device._acquirer.remote_device.node_map).get("Hight")
    device.stop(is_lost=False)


def test_options_are_those_of_every_camera():
    assert set(CameraOptions.__struct_fields__) < set(GenTLOptions.__struct_fields__)
