"""Cameras that send frames of lines, as the libraries of vendors give them, as a source: counts, losses and times."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from flawline.runtime.cameras.numbering import CameraClock, FrameIds
from flawline.runtime.cameras.source import BlockInfo, Status, line_shape
from flawline.runtime.images import Image


class FrameFormat(NamedTuple):
    """What a camera's frames are, from its start to its end."""

    lines: int
    width: int
    channels: int


class CameraFrame(NamedTuple):
    """A frame in a buffer of the camera's library.

    Attributes:
        frame_id: As the camera counts.
        camera_time_ns: Time by the camera's clock, nanoseconds; 0 if it has none.
        pixels: uint8 (lines, width) or RGB (lines, width, 3), valid until the release; None if parts never came.
        release: Gives the buffer back; to be called once.
        detail: Why there are no pixels, or none of the agreed format.
    """

    frame_id: int
    camera_time_ns: int
    pixels: Image | None
    release: Callable[[], object]
    detail: str = ""


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

    def stop(self) -> None:
        """Frees the camera, whatever state it is in."""


class FrameSource:
    """The frames of a camera as blocks of lines, see `Source`: a frame is a block.

    A frame that is missing by the ids is LOST, one that came in parts INCOMPLETE; one of another size or format is LOST
    with the reason `frame_changed`. Frames that come twice are left out.

    Args:
        device: The camera, not yet started.
        spec: The words it was named by, for reports.
        line_rate: Lines per second that were asked for; None if none was.
    """

    def __init__(self, device: Device, spec: str, line_rate: float | None = None) -> None:
        self.spec = spec
        self.width = 0
        self.channels = 0
        self.block_lines = 0
        self.line_rate = line_rate
        self._device = device
        self._ids = FrameIds()
        self._clock = CameraClock()
        self._next_line = 0
        self._held: tuple[CameraFrame, int] | None = None
        self._is_started = False
        self._frames = {"received": 0, "incomplete": 0, "missing": 0, "changed": 0}

    @property
    def counters(self) -> dict[str, int]:
        """See `Source`."""
        frames = {f"frames_{name}": count for name, count in self._frames.items()}
        return {
            "lines_sent": self._next_line,
            **frames,
            "frames_repeated": self._ids.repeated,
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
        if not self._is_started:
            # Not before: what comes while a detector is loaded would be lost for want of buffers.
            self._device.start()
            self._is_started = True
        if self._held is None:
            end_ns = time.monotonic_ns() + round(timeout_s * 1e9)
            while True:
                frame = self._device.fetch(max(0.0, (end_ns - time.monotonic_ns()) / 1e9))
                if frame is None:
                    return BlockInfo(Status.TIMEOUT)
                arrival_ns = time.monotonic_ns()
                step = self._ids.advance(frame.frame_id)
                if step:
                    break
                frame.release()
            self._held = frame, arrival_ns
            if step > 1:
                self._frames["missing"] += step - 1
                detail = f"{step - 1} frames before frame id {frame.frame_id} never came"
                return self._sent(Status.LOST, step - 1, frame, arrival_ns, "missing_frames", detail)
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
        self._device.stop()

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
