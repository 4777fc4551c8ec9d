"""What runs on a GPU for frames of certain sizes."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle.manifest import Input
from flawline.runtime.gpu.buffers import Buffers, Exchange, aligned
from flawline.runtime.gpu.graph import Graph
from flawline.runtime.gpu.module import Kernel, Kernels
from flawline.runtime.kernels.cuda.calls import Call
from flawline.runtime.kernels.cuda.image_calls import preprocess

Shapes = tuple[tuple[int, ...], ...]


class Program:
    """The kernels for frames of certain shapes, in two parts: to the network's input, and from its outputs on.

    Args:
        shapes: Of the frames.
        kernels: Where kernels are found.
        buffers: For tables; freed with the program.
        frames: Where the frames are: uint8, one after the other.
        frame_input: What the network takes.
        target: Address of the network's input.
        scoring: Calls of what comes after the network, for as many frames.

    Attributes:
        count: Frames.
        frames_bytes: From the start of the first frame to the end of the last.
        resizing: The first part.
        scoring: The second part.
        runs: How often all of it has run.
        graph: All of it, once it has been captured.
    """

    def __init__(
        self,
        shapes: Shapes,
        kernels: Kernels,
        buffers: Buffers,
        frames: Exchange,
        frame_input: Input,
        target: int,
        scoring: tuple[Call, ...],
    ) -> None:
        self.count = len(shapes)
        self.frames_bytes = bytes_of(shapes)
        self._places = list(_places(shapes))
        self.scoring = [kernels.kernel(*call) for call in scoring]
        self.resizing: list[Kernel] = []
        self.runs = 0
        self.graph: Graph | None = None
        self._buffers = buffers
        size, channels = (frame_input.height, frame_input.width), frame_input.channels
        slot = 0
        for shape, alike in itertools.groupby(shapes):
            count = len(list(alike))
            call = preprocess(
                (shape[0], shape[1]),
                size,
                count,
                buffers.upload,
                channels=channels,
                planar=frame_input.layout == "nchw",
                interpolation=frame_input.interpolation,
            )
            pixels = call.job["pixels"]
            pixels["source"] = frames.address + self._places[slot].start
            pixels["frame_stride"] = aligned(math.prod(shape))
            pixels["target"] = target + slot * math.prod(size) * channels
            self.resizing.append(kernels.kernel(*call))
            slot += count

    def load(self, frames: list[npt.NDArray[np.uint8]], memory: npt.NDArray[np.uint8]) -> None:
        """Copies frames of these shapes to their places, from where they are uploaded."""
        for frame, place in zip(frames, self._places, strict=True):
            memory[place].reshape(frame.shape)[...] = frame

    def free(self) -> None:
        """Gives everything back. Nothing of it may still run."""
        if self.graph is not None:
            self.graph.close()
        for kernel in (*self.resizing, *self.scoring):
            kernel.free()
        self._buffers.free()


def bytes_of(shapes: Shapes) -> int:
    """Memory that frames of these shapes take."""
    *_, last = _places(shapes)
    return int(last.stop)


def usual_bytes(frame_input: Input, batch: int) -> int:
    """Memory that as many frames take if they are like the good images, or like the network's input where those differ."""
    height, width = frame_input.source_height or frame_input.height, frame_input.source_width or frame_input.width
    return bytes_of(((height, width, frame_input.channels),) * batch)


def _places(shapes: Shapes) -> Iterator[slice]:
    """Where frames of uint8 lie, one after the other."""
    start = 0
    for shape in shapes:
        yield slice(start, start + math.prod(shape))
        start += aligned(math.prod(shape))
