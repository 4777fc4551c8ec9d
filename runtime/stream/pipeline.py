"""The whole stream: source, ring, assembler, detector, sinks."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.cameras.source import Loss, Source, line_shape
from flawline.runtime.detector import Result
from flawline.runtime.errors import DeviceError, FlawlineError, InputError
from flawline.runtime.events import Ending, Pitch, Summary
from flawline.runtime.memory import require
from flawline.runtime.stream.assembler import Assembler, Frame, GridAssembler, TriggerAssembler, Unscored
from flawline.runtime.stream.part_assembler import PartAssembler, held_lines
from flawline.runtime.stream.part_finder import PartOptions
from flawline.runtime.stream.pictures import PictureWriter
from flawline.runtime.stream.report import Report
from flawline.runtime.stream.ring import Policy, Ring
from flawline.runtime.stream.session import DEFAULT_RING_BLOCKS, stream
from flawline.runtime.stream.sinks import DefectSink

Cut = Literal["grid", "trigger"] | PartOptions
"""What makes a frame: a place on a fixed grid of lines, a block of the camera, or a part that is looked for."""

WARMUP_FRAMES = 3
"""Black frames before the first line. On a GPU the second is captured into a graph, and the third comes from it as all later ones."""


class FrameDetector(Protocol):
    """What the stream needs of a detector; `flawline.runtime.Detector` is one.

    Attributes:
        timings_ns: Nanoseconds that each stage of the last frame took.
    """

    @property
    def timings_ns(self) -> Mapping[str, int]:
        """See the class."""

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Result:
        """Scores a frame: uint8 (height, width) or (height, width, channels)."""


def run(
    source: Source,
    detector: FrameDetector,
    sinks: Sequence[DefectSink],
    *,
    frame_lines: int,
    cut: Cut = "grid",
    policy: Policy = "block",
    ring_blocks: int = DEFAULT_RING_BLOCKS,
    stop: threading.Event | None = None,
    max_frames: int | None = None,
    pitch: Pitch | None = None,
    pictures: PictureWriter | None = None,
    progress: Callable[[int], object] | None = None,
) -> Summary:
    """Streams until the source ends, `stop` is set, or enough frames were seen.

    The source is read in a thread of its own; the detector and the sinks run in the caller's. A frame that the detector
    refuses becomes a gap and the stream goes on; a GPU that fails ends it, since no later frame could be scored either.
    Errors that are no `FlawlineError` end it.

    Args:
        source: An open source; the caller closes it.
        detector: Scores frames. It is shown `WARMUP_FRAMES` black frames before the first line is read, so that a web
            that does not fit it is refused at once, and the first frame is not slower than the others.
        sinks: Where events go; the caller closes them.
        frame_lines: Height of a frame in lines.
        cut: What makes a frame.
        policy: What happens when the detector is slower than the line and the ring is full; see `Ring`.
        ring_blocks: Blocks that may wait.
        stop: Ends the stream when set; is set when the stream is over.
        max_frames: Frames after which the stream ends; None for no such limit.
        pitch: Millimetres per pixel, if positions are wanted in millimetres.
        pictures: Writes thumbnails and overlays; closed here.
        progress: Called with the number of lines that came since the last call.

    Returns:
        The account, which the sinks have received as well.

    Raises:
        InputError: Frames of this height cannot be cut so.
        FlawlineError: The detector refuses frames of this size and kind, or the source failed for good; in the second
            case the sinks have received the account.
        DeviceError: The GPU failed; if in mid-stream, the sinks have received the account.
        ResourceError: Ring and frame would not fit into memory.
    """
    _require_memory(source, ring_blocks, frame_lines, cut)
    stop = stop or threading.Event()
    shape = line_shape(source)
    assembler = _assembler(source, frame_lines, cut)
    ring = Ring(ring_blocks, (source.block_lines, *shape), policy)
    black = np.zeros((frame_lines, *shape), np.uint8)
    for _ in range(WARMUP_FRAMES):
        detector(black)
    report = Report(sinks, assembler, pitch=pitch, pictures=pictures, progress=progress)
    return stream(
        source,
        ring,
        stop,
        partial(_inspect_all, _frames(ring, assembler, report), detector, report, stop, max_frames),
        report.close,
        lambda ended, acquisition: report.summary(ended, source, acquisition, ring),
    )


def _assembler(source: Source, frame_lines: int, cut: Cut) -> Assembler:
    if isinstance(cut, PartOptions):
        return PartAssembler(frame_lines, line_shape(source), cut)
    if cut == "grid":
        return GridAssembler(frame_lines, line_shape(source))
    if frame_lines != source.block_lines:
        raise InputError(
            f"frames of {frame_lines} lines from {source.spec}, whose blocks have {source.block_lines}; expected the same, since a "
            "trigger makes every block a frame"
        )
    return TriggerAssembler(frame_lines)


def _require_memory(source: Source, ring_blocks: int, frame_lines: int, cut: Cut) -> None:
    held = held_lines(frame_lines) if isinstance(cut, PartOptions) else frame_lines
    needed_bytes = (ring_blocks * source.block_lines + frame_lines + held) * math.prod(line_shape(source))
    require(
        needed_bytes,
        f"a ring of {ring_blocks} blocks of {source.block_lines} lines beside a frame of {frame_lines}",
        "ask for fewer or smaller ones",
    )


def _frames(ring: Ring, assembler: Assembler, report: Report) -> Iterator[Frame]:
    """Complete frames, until the ring is empty and its producer has finished; what makes none is reported on the way."""
    while (item := ring.take()) is not None:
        if isinstance(item, Loss):
            report.loss(item)
        else:
            report.received(item.info.lines)
            for piece in assembler.add(item):
                if isinstance(piece, Unscored):
                    report.unscored(piece)
                else:
                    yield piece
            ring.release(item)
    for rest in assembler.end():
        report.unscored(rest)


def _inspect_all(
    frames: Iterator[Frame], detector: FrameDetector, report: Report, stop: threading.Event, max_frames: int | None
) -> Ending:
    for number, frame in enumerate(frames, start=1):
        start_ns = time.monotonic_ns()
        try:
            result = detector(frame.pixels)
        except FlawlineError as error:
            report.bad_frame(frame, error)
            if isinstance(error, DeviceError):
                raise
        else:
            report.result(frame, result, start_ns, detector.timings_ns)
        if number == max_frames:
            return "frame_limit"
        if stop.is_set():
            break
    return "stopped" if stop.is_set() else "end"
