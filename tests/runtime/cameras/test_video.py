import contextlib
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from flawline.runtime.cameras import CameraLostError, Status, open_source, video
from flawline.runtime.errors import InputError
from flawline.runtime.images import write_image

EVERYTHING = 1 << 40


def pixels_of(shape: tuple[int, ...], frames: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, *shape), np.uint8)


def write_ffv1(path: Path, frames: np.ndarray) -> Path:
    """A lossless video of grey or RGB frames."""
    is_grey = frames.ndim == 3
    size = (frames.shape[2], frames.shape[1])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, size, not is_grey)
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame if is_grey else cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.mark.parametrize("ending", ["mkv", "avi"])
@pytest.mark.parametrize("shape", [(48, 130), (48, 130, 3)])
@pytest.mark.parametrize("block", [0, 1, 20, 48, 100])
def test_ffv1_comes_bit_for_bit(tmp_path, play, ending, shape, block):
    frames = pixels_of(shape)
    path = write_ffv1(tmp_path / f"web.{ending}", frames)
    with contextlib.closing(open_source(f"video:{path}?block={block}&loop=2")) as source:
        assert (source.width, source.channels) == (130, 1 if len(shape) == 2 else 3)
        assert source.block_lines == (min(block, 48) or 48)
        reads = play(source, EVERYTHING)
        assert source.counters == {"lines_sent": 480, "frames_played": 10, "frames_changed": 0}
    web = np.concatenate([frames.reshape(-1, *shape[1:])] * 2)
    np.testing.assert_array_equal(np.concatenate([block for _, block in reads]), web)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
def test_image_sequence_comes_bit_for_bit(tmp_path, play, shape):
    frames = pixels_of(shape)
    for index, frame in enumerate(frames):
        write_image(tmp_path / f"{index:04d}.png", frame)
    with contextlib.closing(open_source(f"video:{tmp_path}/%04d.png?block=48")) as source:
        np.testing.assert_array_equal([block for _, block in play(source, EVERYTHING)], frames)


def test_frame_that_changes_its_width_is_a_gap_of_its_lines(tmp_path, play):
    frames = pixels_of((48, 64))
    for index, frame in enumerate(frames):
        write_image(tmp_path / f"{index:04d}.png", frame[:, :50] if index == 2 else frame)
    with contextlib.closing(open_source(f"video:{tmp_path}/%04d.png")) as source:
        reads = play(source, EVERYTHING)
    assert [info.status for info, _ in reads] == [Status.OK, Status.OK, Status.LOST, Status.OK, Status.OK]
    lost = reads[2][0]
    assert (lost.lines, lost.reason) == (48, "frame_changed")
    assert "expected 48 lines of 64 px" in lost.detail


@pytest.mark.parametrize(("mode", "channels"), [("grey", 1), ("rgb", 3)])
def test_mode_decides_on_the_channels(tmp_path, play, mode, channels):
    grey = pixels_of((48, 64))
    path = write_ffv1(tmp_path / "grey.mkv", grey)
    with contextlib.closing(open_source(f"video:{path}?mode={mode}")) as source:
        assert source.channels == channels
        blocks = np.array([block for _, block in play(source, EVERYTHING)])
    np.testing.assert_array_equal(blocks if channels == 1 else blocks[..., 1], grey)
    coloured = write_ffv1(tmp_path / "rgb.mkv", np.repeat(grey[..., None], 3, axis=3))
    with contextlib.closing(open_source(f"video:{coloured}?mode={mode}")) as source:
        assert source.channels == channels
        blocks = np.array([block for _, block in play(source, EVERYTHING)])
    np.testing.assert_array_equal(blocks if channels == 1 else blocks[..., 2], grey)


def test_line_rate_is_kept(tmp_path, play):
    path = write_ffv1(tmp_path / "web.mkv", pixels_of((48, 64)))
    with contextlib.closing(open_source(f"video:{path}?line_rate=2000&block=16&loop=forever")) as source:
        start = time.monotonic_ns()
        reads = play(source, 800)
    for info, _ in reads:
        end_line = info.first_line + info.lines
        assert info.arrival_time_ns - start >= end_line / 2000 * 1e9 - 1e6
        assert info.camera_time_ns == round(end_line * 1e9 / 2000)


def _write_nothing(path: Path) -> None:
    pass


def _write_junk(path: Path) -> None:
    path.write_bytes(b"junk" * 1000)


def _write_no_frame(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, (64, 48), False)
    writer.release()
    assert path.stat().st_size > 0


def _write_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_write_nothing, "does not exist; expected a video"),
        (_write_junk, "cannot be opened; expected a video"),
        (_write_no_frame, "holds no frame|cannot be opened"),
        (_write_folder, "is a folder; expected a video: a folder of images is played by replay:"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, capfd, spoil, message):
    path = tmp_path / "web.avi"
    spoil(path)
    with pytest.raises(InputError, match=message) as raised:
        open_source(f"video:{path}")
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_sequence_of_16_bits_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((48, 64), np.uint16))
    with pytest.raises(InputError, match="frames of 16 bits"):
        open_source(f"video:{tmp_path}/%d.png")


def test_sequence_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        open_source(f"video:{tmp_path}/%04d.png")


def test_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="/dev/video99 does not exist"):
        open_source("video:/dev/video99")


def test_gstreamer_plays_or_says_that_it_is_not_there(play):
    spec = (
        "video:gstreamer:videotestsrc num-buffers=3 ! video/x-raw,format=GRAY8,width=64,height=48 ! appsink?mode=grey"
    )
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        with pytest.raises(InputError, match="this OpenCV was built without GStreamer"):
            open_source(spec)
        return
    with contextlib.closing(open_source(spec + "&reconnect=0")) as source:
        assert sum(info.lines for info, _ in play(source, 144)) == 144
        with pytest.raises(CameraLostError, match="no more frames"):
            play(source, 1)


class Pipeline:
    """Stands for OpenCV's capture of a GStreamer pipeline, which the OpenCV of the tests does not read.

    It gives frames of 48 lines of 64 px, then none until it is let go on.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.goes_on = threading.Event()
        self.is_released = threading.Event()

    def isOpened(self) -> bool:  # as OpenCV writes it
        return True

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.frames -= 1
        if self.frames < 0:
            self.goes_on.wait()
            return False, None
        return True, np.full((48, 64), 7, np.uint8)

    def release(self) -> None:
        self.is_released.set()


@pytest.fixture
def pipelines(monkeypatch) -> list[Pipeline]:
    """The captures that are opened one after the other."""
    made = []
    monkeypatch.setattr(video, "_capture", lambda _: made.append(Pipeline(3)) or made[-1])
    yield made
    for pipeline in made:
        pipeline.goes_on.set()
        assert pipeline.is_released.wait(10)


def test_pipeline_is_neither_paced_nor_looped_and_reconnected(pipelines, play):
    with contextlib.closing(open_source("video:gstreamer:x ! appsink?line_rate=1&loop=9")) as source:
        start = time.monotonic()
        assert [block.shape for _, block in play(source, 144)] == [(48, 64)] * 3
        assert time.monotonic() - start < 10
        pipelines[0].goes_on.set()
        reads = play(source, 144)
        assert reads[-1][0].status is Status.OK
        assert source.counters["reconnects"] == 1


def test_pipeline_that_is_silent_is_closed_at_once(pipelines):
    source = open_source("video:gstreamer:x ! appsink")
    buffer = np.empty((48, 64), np.uint8)
    assert [source.read(buffer, 0.05).status for _ in range(4)] == [Status.OK] * 3 + [Status.TIMEOUT]
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 5
    assert not pipelines[0].is_released.is_set()
