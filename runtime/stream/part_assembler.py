"""Blocks to frames that each show a part: it is looked for on the conveyor, wherever it lies."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.stream.assembler import Frame, Unscored
from flawline.runtime.stream.part_finder import GROUP_LINES, PartFinder, PartOptions
from flawline.runtime.stream.ring import Block

CONFIRM_LINES = 4
"""So many lines in a row make a part begin or end: fewer are noise."""

FORGET_FRAMES = 8
"""What stays for so many frames more is no part: the light has changed, or a part lay where the background was learnt."""

_DETAILS = {
    "long_part": "a part goes on beyond its frame, or touches the next one",
    "cut_part": "a part without its beginning or its end, or without the margin before it",
    "no_background": "the conveyor is not known yet, or not any more, and these lines do not agree",
}


class PartAssembler:
    """Finds where parts begin and hands out a frame for each, from a margin before it.

    A part begins with `CONFIRM_LINES` lines that show one, and ends with as many that show none. While a frame is filled
    nothing else begins. A part that goes on behind its frame is told, and so is one that a gap, the start or the end of the
    web has cut. The next part needs empty lines before it; its margin may overlap with the frame before.

    Args:
        frame_lines: Height of a frame.
        line_shape: Shape of a line: (width,) or (width, 3).
        options: How parts are told from the conveyor.

    Raises:
        InputError: The margin leaves no room for a part, or the given background does not fit.
    """

    def __init__(self, frame_lines: int, line_shape: tuple[int, ...], options: PartOptions) -> None:
        if 2 * options.margin_lines > frame_lines or frame_lines < 2 * CONFIRM_LINES:
            raise InputError(
                f"frames of {frame_lines} lines with a margin of {options.margin_lines}; expected {2 * CONFIRM_LINES} lines or more, and a "
                "margin of half of them at most"
            )
        self._frame_lines = frame_lines
        self._margin = options.margin_lines
        self._finder = PartFinder(line_shape, options)
        self._may_forget = options.background is None
        self._buffer = np.full((held_lines(frame_lines), *line_shape), 0, np.uint8)
        self._kept = (len(self._buffer) - GROUP_LINES) // 2
        self._base = 0  # number of the buffer's first line
        self._start = 0  # first line since the last gap
        self._line = 0  # the next line
        self._index = 0
        self._on, self._run = True, 0  # whether lines show a part, and how many do not agree with that
        self._frame: int | None = None  # first line of the frame that is filled
        self._open: int | None = None  # or first line that was not told of what is no frame
        self._reason = ""  # why it is none
        self._pieces = 0  # in which it was told so far
        self._quiet: list[int] = []  # empty lines of the group
        self._lines = self._covered = self._covered_to = 0
        self._restart(0)

    @property
    def lines_without_part(self) -> int:
        """See `Assembler`."""
        return self._lines - self._covered - self._pending

    def lose(self, first_line: int, lines: int) -> tuple[int, int]:
        """The lines, and what came of the part that they cut."""
        begin = self._begun
        self._gap(first_line + lines)
        return (first_line, lines) if begin is None else (begin, first_line + lines - begin)

    def add(self, block: Block) -> Iterator[Frame | Unscored]:
        """See `Assembler`."""
        pixels, info = block.pixels, block.info
        if info.first_line != self._line:
            self._gap(info.first_line)
        taken = 0
        while taken < len(pixels):
            count = min(len(pixels) - taken, GROUP_LINES - self._line % GROUP_LINES)
            lines = self._store(pixels[taken : taken + count])
            if self._finder.known:
                for shows_part in self._finder.shows_part(lines).tolist():
                    yield from self._step(shows_part, block)
            else:
                self._line += count
                self._lines += count
            taken += count
            if self._line % GROUP_LINES == 0:
                yield from self._end_group()

    def end(self) -> Iterator[Unscored]:
        """See `Assembler`."""
        begin = self._begun
        if begin is not None:
            yield from self._tell(begin, self._line - (self._run if self._on else 0))
        self._frame = self._open = None

    @property
    def _begun(self) -> int | None:
        """First line of what is under way and not told: a frame, or a part without one."""
        if self._frame is not None:
            return self._frame
        # Empty lines that do not suffice yet to say so are no part.
        return None if self._open is None or self._line - self._run <= self._open else self._open

    @property
    def _pending(self) -> int:
        begin = self._begun
        return 0 if begin is None else max(0, self._line - max(begin, self._covered_to))

    def _gap(self, line: int) -> None:
        """Gives up what was begun, and goes on at another line."""
        self._covered += self._pending
        self._covered_to = self._line
        self._restart(line)

    def _restart(self, line: int) -> None:
        """Goes on at a line of which nobody knows whether it lies in the middle of a part."""
        self._start = self._line = self._base = line
        self._on, self._run = True, 0
        self._frame, self._open = None, line
        self._pieces = 0
        self._quiet.clear()
        self._reason = "cut_part" if self._finder.known else "no_background"

    def _store(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        offset = self._line - self._base
        if offset + len(pixels) > len(self._buffer):
            self._buffer[: self._kept] = self._buffer[offset - self._kept : offset]
            self._base, offset = self._line - self._kept, self._kept
        stored = self._buffer[offset : offset + len(pixels)]
        stored[...] = pixels
        return stored

    def _step(self, shows_part: bool, block: Block) -> Iterator[Frame | Unscored]:
        line = self._line
        self._line += 1
        self._lines += 1
        self._run = 0 if shows_part is self._on else self._run + 1
        if self._run == CONFIRM_LINES:
            self._on, self._run = shows_part, 0
            yield from self._turn(line + 1 - CONFIRM_LINES)
        if not (shows_part or self._on):
            self._quiet.append(line)
        if self._frame is not None and self._line == self._frame + self._frame_lines:
            yield self._cut(block)
        # Not to the last line: the end of the part is known `CONFIRM_LINES` later.
        if self._open is not None and self._line - self._open >= self._frame_lines + CONFIRM_LINES:
            yield from self._tell(self._open, self._open + self._frame_lines)

    def _turn(self, line: int) -> Iterator[Unscored]:
        """A part has begun, or ended, at a line."""
        if self._on and self._frame is None and self._open is None:
            self._pieces = 0
            if line - self._margin >= self._start:
                self._frame = line - self._margin
            else:
                self._open, self._reason = self._start, "cut_part"
        elif not self._on and self._open is not None:
            yield from self._tell(self._open, line)
            self._open = None

    def _cut(self, block: Block) -> Frame:
        assert self._frame is not None
        first_line, end = self._frame, self._frame + self._frame_lines
        frame = Frame(
            self._index,
            first_line,
            self._buffer[first_line - self._base : end - self._base],
            block.info.camera_time_ns,
            block.info.arrival_time_ns,
        )
        self._index += 1
        self._cover(first_line, end)
        self._frame = None
        if self._on:
            self._open, self._reason = end, "long_part"
        return frame

    def _tell(self, first_line: int, end: int) -> Iterator[Unscored]:
        """Tells lines of a part that make no frame."""
        reason = "cut_part" if self._frame is not None else self._reason
        if self._open is not None:
            self._open = max(self._open, end)
        if end > first_line:
            self._cover(first_line, end)
            self._pieces += 1
            yield Unscored(first_line, end - first_line, reason, _DETAILS[reason], continued=self._pieces > 1)

    def _cover(self, first_line: int, end: int) -> None:
        self._covered += max(0, end - max(first_line, self._covered_to))
        self._covered_to = max(self._covered_to, end)

    def _end_group(self) -> Iterator[Unscored]:
        first = self._line - GROUP_LINES
        if first < self._start:
            self._quiet.clear()
            return
        group = self._buffer[first - self._base : self._line - self._base]
        if not self._finder.known:
            assert self._open is not None
            is_learnt = self._finder.learn(group)
            yield from self._tell(self._open, first if is_learnt else self._line)
            if is_learnt:
                self._open, self._reason, self._pieces = self._line, "cut_part", 0
                self._on, self._run = True, 0
        elif self._may_forget and self._open is not None and self._pieces >= FORGET_FRAMES:
            self._finder.forget()
            yield from self._tell(self._open, self._line)
            self._reason, self._pieces = "no_background", 0
        elif self._quiet:
            self._finder.follow(group[np.array(self._quiet) - first])
        self._quiet.clear()


def held_lines(frame_lines: int) -> int:
    """Lines in the buffer of a `PartAssembler`: twice what a frame and the group behind it need."""
    return 2 * (frame_lines + 2 * GROUP_LINES) + GROUP_LINES
