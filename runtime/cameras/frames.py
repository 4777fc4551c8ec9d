"""Cameras that send frames of lines, as the libraries of vendors give them, as a source: counts, losses and times."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.cameras.features import CameraOptions, FrameFormat
from flawline.runtime.cameras.numbering import CameraClock, Delay, FrameIds
from flawline.runtime.cameras.reconnecting import ReconnectingSource
from flawline.runtime.cameras.source import BlockInfo, CameraLostError, Source, Status, line_shape, opened
from flawline.runtime.images import Image

_AS_IT_IS = CameraOptions()
TOO_SHORT = "it has fewer bytes than its size says"


class CameraFrame(NamedTuple):
    """A frame in a buffer of the camera's library.

    Attributes:
        frame_id: As the camera counts.
        camera_time_ns: Time by the camera's clock, nanoseconds; 0 if it has none.
        pixels: uint8 (lines, width) or RGB (lines, width, 3), valid until the release; None if parts never came.
        release: Gives the buffer back; to be called once.
        detail: Why there are no pixels, or none of the agreed format.
        begun_ns: `time.monotonic_ns()` when the first of it was here; 0 if the library does not tell.
    """

    frame_id: int
    camera_time_ns: int
    pixels: Image | None
    release: Callable[[], object]
    detail: str = ""
    begun_ns: int = 0


class Device(Protocol):
    """A camera behind a vendor's library."""

    @property
    def statistics(self) -> Mapping[str, int]:
        """What the library counts, by name."""

    def open(self) -> FrameFormat:
        """Opens the camera and sets it up; it sends nothing yet.

        Raises:
            InputError: There is no such camera, or it refuses a setting.
            CameraLostError: It went while it was set up.
        """

    def start(self) -> None:
        """Has the camera send.

        Raises:
            CameraLostError: It is gone, or refuses to.
        """

    def fetch(self, timeout_s: float) -> CameraFrame | None:
        """Waits for the next frame; None if none came in time.

        Raises:
            CameraLostError: The camera is gone.
        """

    def stop(self, is_lost: bool) -> None:
        """Frees the camera, whatever state it is in.

        Args:
            is_lost: It is taken for gone: what would wait for an answer of it is left out.
        """


def camera_source(make: Callable[[], Device], options: CameraOptions, spec: str) -> Source:
    """A camera as a source, still closed, that is opened again whenever it is lost.

    Args:
        make: Makes the camera, closed.
        options: How it is read.
        spec: The words it was named by, for reports.
    """
    return ReconnectingSource(
        lambda: opened(FrameSource(make(), spec, options)), spec, longest_pause_s=options.reconnect
    )


def view(memory: npt.NDArray[np.uint8], form: FrameFormat, stride: int, *, is_bgr: bool) -> Image | None:
    """Pixels of a frame in RGB order, a view of a library's buffer.

    Args:
        memory: The buffer, uint8 (bytes,).
        form: Shape of the frame.
        stride: Bytes from line to line.
        is_bgr: The order of colours in the buffer.

    Returns:
        uint8 (lines, width) or (lines, width, channels); None where the buffer is too short for that.
    """
    lines, width, channels = form
    if stride < width * channels or (lines - 1) * stride + width * channels > memory.size:
        return None
    pixels: Image = np.ndarray(form, np.uint8, memory, strides=(stride, channels, 1))
    if channels == 1:
        return pixels[..., 0]
    return pixels[..., ::-1] if is_bgr else pixels


class FrameSource:
    """The frames of a camera as blocks of lines, see `Source`: a frame is a block.

    A frame that is missing by the ids is LOST, one that came in parts INCOMPLETE; one of another size or format is LOST
    with the reason `frame_changed`. Frames that come twice are left out.

    A frame is here before it is fetched, by as long as it waits in the library's buffers: as much as it is later than the
    fastest ones, by the host's stamp of its beginning or else by the camera's clock.

    Args:
        device: The camera, not yet started.
        spec: The words it was named by, for reports.
        options: How it is read.
    """

    has_encoder = False

    def __init__(self, device: Device, spec: str, options: CameraOptions = _AS_IT_IS) -> None:
        self.spec = spec
        self.width = 0
        self.channels = 0
        self.block_lines = 0
        self.line_rate = options.line_rate or None
        self._device = device
        self._silence_s = options.silence
        self._ids = FrameIds()
        self._clock = CameraClock()
        self._delay = Delay()
        self._fetches_ns: deque[int] = deque(maxlen=options.buffers)
        self._arrival_ns = 0
        self._heard_ns = 0
        self._next_line = 0
        self._held: tuple[CameraFrame, int] | None = None
        self._is_started = False
        self._is_lost = False
        self._frames = {"received": 0, "incomplete": 0, "missing": 0, "changed": 0}

    @property
    def counters(self) -> dict[str, int]:
        """See `Source`."""
        frames = {f"frames_{name}": count for name, count in self._frames.items()}
        return {
            "lines_sent": self._next_line,
            **frames,
            "frames_repeated": self._ids.repeated,
            "frames_uncounted": self._ids.uncounted,
            "frame_id_jumps": self._ids.jumps,
            "clock_restarts": self._clock.restarts,
            **self._device.statistics,
        }

    def open(self) -> None:
        """See `Source`."""
        self.block_lines, self.width, self.channels = self._device.open()

    def read(self, into: Image, timeout_s: float) -> BlockInfo:
        """See `Source`.

        Raises:
            CameraLostError: The camera is gone.
        """
        try:
            missing = None if self._held is not None else self._fetch(timeout_s)
        except CameraLostError:
            self._is_lost = True
            raise
        if missing is not None:
            return missing
        assert self._held is not None
        frame, arrival_ns = self._held
        self._held = None
        try:
            return self._deliver(frame, arrival_ns, into)
        finally:
            frame.release()

    def close(self) -> None:
        """See `Source`."""
        if self._held is not None:
            self._held[0].release()
            self._held = None
        self._device.stop(self._is_lost)

    def _fetch(self, timeout_s: float) -> BlockInfo | None:
        """Takes the next frame, unless it does not come in time; what is to be told before it is delivered."""
        if not self._is_started:
            # Not before: what comes while a detector is loaded would be lost for want of buffers.
            self._device.start()
            self._is_started = True
            self._heard_ns = time.monotonic_ns()
        end_ns = time.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            frame = self._device.fetch(max(0.0, (end_ns - time.monotonic_ns()) / 1e9))
            now_ns = time.monotonic_ns()
            if frame is None:
                silent_s = (now_ns - self._heard_ns) / 1e9
                if self._silence_s and silent_s > self._silence_s:
                    raise CameraLostError(f"camera {self.spec} is lost: it was silent for {silent_s:.1f} s")
                return BlockInfo(Status.TIMEOUT)
            self._heard_ns = now_ns
            arrival_ns = self._arrived(frame, now_ns)
            step = self._ids.advance(frame.frame_id, frame.camera_time_ns)
            if step:
                break
            frame.release()
        self._held = frame, arrival_ns
        if step == 1:
            return None
        self._frames["missing"] += step - 1
        detail = f"{step - 1} frames before frame id {frame.frame_id} never came"
        return self._sent(Status.LOST, step - 1, frame, arrival_ns, "missing_frames", detail)

    def _arrived(self, frame: CameraFrame, now_ns: int) -> int:
        """When a frame that was fetched now was here, nanoseconds."""
        stamp_ns = frame.begun_ns or frame.camera_time_ns
        waited_ns = self._delay.of(stamp_ns, now_ns) if stamp_ns else 0
        # Whatever a clock says: its buffer was that of another frame before, and free only when that had been fetched.
        is_full = len(self._fetches_ns) == self._fetches_ns.maxlen
        earliest_ns = self._fetches_ns[0] if is_full else self._arrival_ns
        self._fetches_ns.append(now_ns)
        self._arrival_ns = max(self._arrival_ns, earliest_ns, now_ns - waited_ns)
        return self._arrival_ns

    def _deliver(self, frame: CameraFrame, arrival_ns: int, into: Image) -> BlockInfo:
        expected = (self.block_lines, *line_shape(self))
        if frame.pixels is None:
            self._frames["incomplete"] += 1
            return self._sent(Status.INCOMPLETE, 1, frame, arrival_ns, "incomplete_frame", frame.detail)
        if frame.pixels.shape != expected:
            self._frames["changed"] += 1
            shapes = f"frame {frame.frame_id} is {frame.pixels.shape}; expected {expected}, as when the stream began"
            return self._sent(Status.LOST, 1, frame, arrival_ns, "frame_changed", frame.detail or shapes)
        into[: self.block_lines] = frame.pixels
        self._frames["received"] += 1
        return self._sent(Status.OK, 1, frame, arrival_ns)

    def _sent(
        self, status: Status, frames: int, frame: CameraFrame, arrival_ns: int, reason: str = "", detail: str = ""
    ) -> BlockInfo:
        first_line, lines = self._next_line, frames * self.block_lines
        self._next_line += lines
        camera_ns = self._clock.read(frame.camera_time_ns or arrival_ns, arrival_ns)
        return BlockInfo(status, first_line, lines, camera_ns, arrival_ns, reason, detail)
