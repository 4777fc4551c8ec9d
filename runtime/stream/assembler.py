"""Blocks to frames: pieces of the web of equal height, on a fixed grid of lines, or one for each block of the camera."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.stream.ring import Block


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """A complete piece of the web.

    Attributes:
        index: Number of the frame: on the web's grid its first line divided by its height, else that of the part.
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


@dataclass(frozen=True, slots=True)
class Unscored:
    """Lines that came and ought to have been inspected, but make no frame.

    Attributes:
        first_line: Number of the first of them.
        lines: How many.
        reason: The name under which they are counted, such as `long_part`.
        detail: One line for people.
        continued: Whether they go on from lines that were told already, of the same part.
    """

    first_line: int
    lines: int
    reason: str
    detail: str
    continued: bool = False


class Assembler(Protocol):
    """Turns blocks into frames.

    Attributes:
        lines_without_part: Lines so far that showed no part, and belong to no frame; None where nobody looks for parts.
    """

    @property
    def lines_without_part(self) -> int | None:
        """See the class."""

    def add(self, block: Block) -> Iterator[Frame | Unscored]:
        """Takes the lines of a block.

        Args:
            block: Its lines must lie behind those of the block before; lines between the two are missing.

        Yields:
            Every frame that its lines complete, and what will be none. A frame's pixels are valid until the next step of
            the iteration.
        """

    def end(self) -> Iterator[Unscored]:
        """Ends the web. Yields what was begun and will not be completed, if it is known to be of a part."""

    def lose(self, first_line: int, lines: int) -> tuple[int, int]:
        """Takes note that lines are lost that follow on the last block.

        Args:
            first_line: Number of the first of them.
            lines: How many.

        Returns:
            First line and number of all lines that cannot be scored therefore; `add` and `end` do not tell them again.
        """


class GridAssembler:
    """Copies lines into one frame buffer and hands it out whenever it is complete.

    Frames begin at multiples of their height, before and after a gap alike, so that what is printed or laid on the web
    in that pitch keeps its place in the frame. A frame that misses a single line is never handed out.

    Args:
        frame_lines: Height of a frame.
        line_shape: Shape of a line: (width,) or (width, channels).
    """

    lines_without_part = None

    def __init__(self, frame_lines: int, line_shape: tuple[int, ...]) -> None:
        self.buffer = np.full((frame_lines, *line_shape), 0, np.uint8)
        self._index = 0
        self._filled = 0

    def add(self, block: Block) -> Iterator[Frame]:
        """See `Assembler`."""
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

    def end(self) -> Iterator[Unscored]:
        """The last lines of a web need not fill a frame."""
        yield from ()

    def lose(self, first_line: int, lines: int) -> tuple[int, int]:
        """The frames of the grid that the lines touch."""
        frame_lines = len(self.buffer)
        begin = first_line - first_line % frame_lines
        return begin, first_line + lines - begin + -(first_line + lines) % frame_lines


class TriggerAssembler:
    """Hands out every block as a frame: those of a camera that a photo-eye triggers once for each part.

    A block of another height shows another piece of the part than those that were learnt, and is not scored. Frames are
    numbered by trigger: lost ones are counted by their lines.

    Args:
        frame_lines: Height of a frame.
    """

    lines_without_part = None

    def __init__(self, frame_lines: int) -> None:
        self._frame_lines = frame_lines
        self._index = 0
        self._next_line: int | None = None

    def add(self, block: Block) -> Iterator[Frame | Unscored]:
        """See `Assembler`."""
        info = block.info
        if self._next_line is not None:
            self._index += -(-(info.first_line - self._next_line) // self._frame_lines)
        self._next_line = info.first_line + info.lines
        index, self._index = self._index, self._index + 1
        if info.lines == self._frame_lines:
            yield Frame(index, info.first_line, block.pixels, info.camera_time_ns, info.arrival_time_ns)
        else:
            detail = f"a block of {info.lines} lines; expected {self._frame_lines}, the height of a frame"
            yield Unscored(info.first_line, info.lines, "wrong_height", detail)

    def end(self) -> Iterator[Unscored]:
        """Blocks are complete or lost."""
        yield from ()

    def lose(self, first_line: int, lines: int) -> tuple[int, int]:
        """The lines themselves: blocks are lost whole."""
        return first_line, lines
