"""Blocks to frames: pieces of the web of equal height, on a fixed grid of lines."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.runtime.stream.ring import Block


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """A complete piece of the web.

    Attributes:
        index: Number of the frame on the web's grid: its first line divided by its height.
        first_line: Number of its first line.
        pixels: uint8 (frame_lines, width[, channels]); overwritten by the next frame.
        camera_time_ns: The source's clock at the end of the block that brought its last line.
        arrival_time_ns: `time.monotonic_ns()` when that block was here.
    """

    index: int
    first_line: int
    pixels: npt.NDArray[np.uint8]
    camera_time_ns: int
    arrival_time_ns: int

    @property
    def lines(self) -> int:
        """Height in lines."""
        return len(self.pixels)


class Assembler:
    """Copies lines into one frame buffer and hands it out whenever it is complete.

    Frames begin at multiples of their height, before and after a gap alike, so that what is printed or laid on the web
    in that pitch keeps its place in the frame. A frame that misses a single line is never handed out.

    Args:
        frame_lines: Height of a frame.
        line_shape: Shape of a line: (width,) or (width, channels).
    """

    def __init__(self, frame_lines: int, line_shape: tuple[int, ...]) -> None:
        self.buffer = np.full((frame_lines, *line_shape), 0, np.uint8)
        self._index = 0
        self._filled = 0

    def add(self, block: Block) -> Iterator[Frame]:
        """Takes the lines of a block.

        Args:
            block: Its lines must lie behind those of the block before; lines between the two are missing.

        Yields:
            Every frame that its lines complete. A frame's pixels are valid until the next step of the iteration.
        """
        frame_lines = len(self.buffer)
        pixels, first_line = block.pixels, block.info.first_line
        taken = 0
        while taken < len(pixels):
            index, offset = divmod(first_line + taken, frame_lines)
            count = min(len(pixels) - taken, frame_lines - offset)
            if index != self._index:
                self._index, self._filled = index, 0
            # With a line missing, the count stays behind for the rest of this frame.
            if offset == self._filled:
                self.buffer[offset : offset + count] = pixels[taken : taken + count]
                self._filled += count
            taken += count
            if self._filled == frame_lines:
                yield Frame(
                    index,
                    index * frame_lines,
                    self.buffer,
                    block.info.camera_time_ns,
                    block.info.arrival_time_ns,
                )
