"""Videos, image sequences, V4L2 devices and GStreamer pipelines, as OpenCV reads them: every frame a block of lines."""

import functools
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from flawline.runtime.cameras.found import FoundCamera
from flawline.runtime.cameras.pacing import Pacing
from flawline.runtime.cameras.reconnecting import ReconnectingSource
from flawline.runtime.cameras.source import BlockInfo, CameraLostError, Source, Status, line_shape, opened
from flawline.runtime.cameras.worker import Worker
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import ENDINGS, Image, quiet

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

# FFmpeg would write on standard error what an error says already; OpenCV asks for the level once, at the first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

GSTREAMER = "gstreamer:"
_PATIENCE_S = 1.0  # with a device that is asked for a frame when it is closed
_GREY_8_BITS = ("Y800", "GREY", "Y8  ")


class VideoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a `video:` spec may say; error messages quote the descriptions."""

    line_rate: Annotated[
        float, Meta(ge=0, le=1e7, description="lines per second up to 1e7, 0 for as fast as they come")
    ] = 0.0
    block: Annotated[
        int, Meta(ge=0, le=65536, description="lines per block up to 65536, 0 for the height of a frame")
    ] = 0
    loop: Annotated[
        Annotated[int, Meta(ge=1)] | Literal["forever"],
        Meta(description="how often the video is played, 1 or more, or forever"),
    ] = 1
    mode: Annotated[
        Literal["auto", "grey", "rgb"],
        Meta(description="grey, rgb, or auto for grey where the video stores 8-bit grey and rgb elsewhere"),
    ] = "auto"
    reconnect: Annotated[
        float,
        Meta(ge=0, le=3600, description="longest pause before a lost device is opened again, seconds, 0 for never"),
    ] = 10.0


def create(address: str, options: VideoOptions, spec: str) -> Source:
    """A source of a video, still closed; a live one is opened again when it is lost. See `Scheme`."""
    if not _is_live(address):
        return VideoSource(address, options, spec)
    return ReconnectingSource(
        lambda: opened(VideoSource(address, options, spec)), spec, longest_pause_s=options.reconnect
    )


def discover() -> list[FoundCamera]:
    """The V4L2 devices of this machine, whether they capture or not."""
    found = []
    for path in sorted(Path("/dev").glob("video*")):
        label = Path("/sys/class/video4linux") / path.name / "name"
        model = label.read_text().strip() if label.exists() else "V4L2 device"
        found.append(FoundCamera(f"video:{path}", model, "", str(path)))
    return found


def _is_live(address: str) -> bool:
    """Whether frames come when they come: they are neither paced nor played again."""
    return address.startswith(("/dev/", GSTREAMER))


class VideoSource:
    """A video's frames joined along the web, see `Source`. The next frame is decoded while one is read.

    A frame of another size is LOST, as many lines as a frame has. OpenCV tells of no frame that a device dropped: a
    camera that has a count of its own is read through its own kind of source.

    Args:
        address: File, pattern of an image sequence such as `web/%04d.png`, `/dev/video0`, or `gstreamer:PIPELINE`.
        options: How to play it.
        spec: The words it was named by, for reports.
    """

    has_encoder = False

    def __init__(self, address: str, options: VideoOptions, spec: str = "") -> None:
        self.spec = spec or f"video:{address}"
        self.width = 0
        self.channels = 0
        self.block_lines = 0
        self.line_rate = options.line_rate or None
        self._address = address
        self._is_live = _is_live(address)
        self._pacing = Pacing(None if self._is_live else self.line_rate)
        self._frames_played = self._frames_changed = 0
        self._options = options
        self._rounds_left = float("inf") if options.loop == "forever" else options.loop
        self._capture: Any = None
        self._decoder: Worker | None = None
        self._decoding: Future[Image | str | None] | None = None
        self._buffers: list[Image] = []
        self._frame: Image | str | None = None
        self._frame_lines = 0
        self._row = 0
        self._is_over = False

    @property
    def counters(self) -> dict[str, int]:
        """See `Source`."""
        return {
            "lines_sent": self._pacing.lines_sent,
            "frames_played": self._frames_played,
            "frames_changed": self._frames_changed,
        }

    def open(self) -> None:
        """See `Source`."""
        self._rounds_left -= 1
        # Not here, where Ctrl-C could not end the wait for the first frame of a device that is silent.
        self._decoder = Worker("video")
        first = self._decoder.submit(self._open_capture).result()
        is_grey = first.ndim == 2 if self._options.mode == "auto" else self._options.mode == "grey"
        self._frame_lines, self.width = first.shape[:2]
        self.channels = 1 if is_grey else 3
        self.block_lines = min(self._options.block or self._frame_lines, self._frame_lines)
        self._buffers = [np.zeros((self._frame_lines, *line_shape(self)), np.uint8) for _ in range(2)]
        self._frame = self._converted(first, self._buffers[0])
        self._decode_next()

    def read(self, into: Image, timeout_s: float) -> BlockInfo:
        """See `Source`.

        Raises:
            CameraLostError: The device sends no more.
        """
        end_s = time.monotonic() + timeout_s
        if self._frame is None and not self._next_frame(timeout_s):
            return BlockInfo(Status.END if self._is_over else Status.TIMEOUT)
        frame = self._frame
        whole = isinstance(frame, str)
        lines = self._frame_lines if whole else min(len(into), self._frame_lines - self._row)
        if not self._pacing.wait_for(self._pacing.lines_sent + lines, end_s - time.monotonic()):
            return BlockInfo(Status.TIMEOUT)
        if isinstance(frame, str):
            self._frames_changed += 1
            self._frame = None
            return self._pacing.sent(Status.LOST, lines, "frame_changed", frame)
        if frame is not None:
            into[:lines] = frame[self._row : self._row + lines]
        self._row += lines
        if self._row == self._frame_lines:
            self._frames_played += 1
            self._frame = None
        return self._pacing.sent(Status.OK, lines)

    def close(self) -> None:
        """See `Source`."""
        if self._decoder is not None:
            # Behind the frame that is being decoded, which from a device may be long in coming: it is not waited for.
            self._decoder.submit(self._release)
            self._decoder.close(_PATIENCE_S if self._is_live else None)
        self._decoder = self._decoding = self._frame = None
        self._is_over = True

    def _next_frame(self, timeout_s: float) -> bool:
        """Takes the frame that is being decoded; False if it is not there in time, or the video is over."""
        if self._decoding is None:
            return False
        try:
            decoded = self._decoding.result(max(0.0, timeout_s))
        except NotYet:
            return False
        if decoded is None:
            self._decoding = None
            if self._is_live:
                raise CameraLostError(f"{self._address} sends no more frames")
            self._is_over = True
            return False
        self._frame, self._row = decoded, 0
        self._decode_next()
        return True

    def _decode_next(self) -> None:
        self._buffers.reverse()
        if self._decoder is not None:
            self._decoding = self._decoder.submit(functools.partial(self._decode, self._buffers[0]))

    def _decode(self, buffer: Image) -> Image | str | None:
        """The next frame in the buffer; why it is none; None behind the last one."""
        frame = _grabbed(self._capture)
        if frame is None and self._rounds_left > 0 and not self._is_live:
            self._rounds_left -= 1
            self._capture.release()
            frame = self._open_capture()
        if frame is None:
            return None
        if frame.shape[:2] != buffer.shape[:2] or frame.dtype != np.uint8:
            height, width = buffer.shape[:2]
            return (
                f"a frame of {self._address} is {frame.dtype} {frame.shape}; expected {height} lines of {width} px, "
                "as when the video began"
            )
        return self._converted(frame, buffer)

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def _converted(self, frame: Image, buffer: Image) -> Image:
        if frame.ndim == 2 and buffer.ndim == 2:
            buffer[:] = frame
        else:
            code = cv2.COLOR_BGR2GRAY if buffer.ndim == 2 else cv2.COLOR_BGR2RGB
            cv2.cvtColor(frame, code if frame.ndim == 3 else cv2.COLOR_GRAY2RGB, dst=buffer)
        return buffer

    def _open_capture(self) -> Image:
        """Opens the video anew and gives its first frame: uint8 (lines, width) grey or BGR (lines, width, 3)."""
        self._capture = capture = _capture(self._address)
        if not capture.isOpened():
            raise InputError(f"{self._address} cannot be opened; expected a video, an image sequence or a device")
        stored = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(4, "little", signed=True)
        is_sequence = _is_sequence(self._address)
        if is_sequence or stored.decode("latin-1") in _GREY_8_BITS:
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        frame = _grabbed(capture)
        if frame is None:
            raise InputError(f"{self._address} holds no frame that can be decoded; expected at least one")
        if frame.dtype != np.uint8 or stored.startswith(b"Y1") or frame.shape[2:] not in ((), (3,)):
            bits = 16 if frame.dtype != np.uint8 or stored.startswith(b"Y1") else 8
            raise InputError(
                f"{self._address} has frames of {bits} bits, {frame.shape}; expected grey or RGB of 8 bits"
            )
        return frame


def _capture(address: str) -> Any:
    """OpenCV's capture, open or not.

    Raises:
        InputError: What is named is not there, or this OpenCV does not read its kind.
    """
    if address.startswith(GSTREAMER):
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise InputError(
                f"{address}: this OpenCV was built without GStreamer; use that of JetPack or of the distribution"
            )
        name, api = address.removeprefix(GSTREAMER), cv2.CAP_GSTREAMER
    elif _is_live(address):
        name, api = address, cv2.CAP_V4L2
    else:
        name, api = address, cv2.CAP_IMAGES if _is_sequence(address) else cv2.CAP_FFMPEG
    if api != cv2.CAP_GSTREAMER and not _is_sequence(address) and "://" not in address and not Path(address).exists():
        raise InputError(f"{address} does not exist; expected a video, an image sequence or a device")
    if api != cv2.CAP_GSTREAMER and Path(address).is_dir():
        raise InputError(f"{address} is a folder; expected a video: a folder of images is played by replay:{address}")
    return _silently(lambda: cv2.VideoCapture(name, api))


def _is_sequence(address: str) -> bool:
    return address.lower().endswith(ENDINGS) and re.search(r"%0?\d*d", address) is not None


def _grabbed(capture: Any) -> Image | None:
    arrived, frame = _silently(capture.read)
    return frame if arrived else None


def _silently(act: Callable[[], Any]) -> Any:
    """What OpenCV gives, without what it writes on standard error; its exceptions stand for nothing given."""
    with quiet:
        try:
            return act()
        except cv2.error:
            return False, None
