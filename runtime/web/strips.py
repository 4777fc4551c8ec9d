"""Lines of the web to strips with their context, whatever the blocks in which the lines came."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels.interpolation import reflect
from flawline.runtime.web.geometry import Geometry

Lines = npt.NDArray[np.uint8]

Condition = Callable[[Lines, int], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Prepares lines in place and finds the edges of the web on them; see `StripBuffer`."""

GROUP_LINES = 16
"""Lines that are conditioned together begin at multiples of this."""


@dataclass(frozen=True, eq=False, slots=True)
class Strip:
    """A strip of the web and its context.

    Attributes:
        first_line: Number of its first line, a multiple of the total stride.
        start: First line of the strip that was there; above `first_line` only where the web or a stretch of it begins.
        end: Line behind the last one that was there; below the strip's own end only where a stretch ends.
        begins: Whether the web, or what lies behind a gap, begins here.
        stretch_end: Line behind the last one of the stretch, if that is known already: in the strip or in its context.
        window: uint8 (strip_lines + 2 halo, tiles * tile_px + 2 halo[, channels]); overwritten by the next strip.
        left: float32 (strip_lines,), left edge of the web on each line, pixels; of no meaning outside `start` to `end`.
        right: float32 (strip_lines,), right edge likewise: the pixel behind the last one.
    """

    first_line: int
    start: int
    end: int
    begins: bool
    stretch_end: int | None
    window: Lines
    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]

    @property
    def ends(self) -> bool:
        """Whether the stretch ends in this strip."""
        return self.stretch_end == self.end


class StripBuffer:
    """Collects lines until a strip has its context.

    Context that is not there, beyond the image of the camera, before the first line, behind the last, and in a gap, is the
    reflection of what is (as OpenCV's BORDER_REFLECT_101). What a strip holds does not depend on how its lines were cut
    into blocks.

    Args:
        geometry: Of strips and tiles.
        width: Pixels of a line.
        channels: 1 for grey, 3 for RGB.
        condition: Called with groups of whole lines, uint8 (n, width[, channels]), and the number of the first, which it
            may change in place; gives the web's left and right edge on each, float32 (n,). Groups begin at multiples of
            `GROUP_LINES`, except the first and the last ones of a stretch, which may be cut short. None for lines that
            are web from one end to the other.
    """

    def __init__(self, geometry: Geometry, width: int, channels: int = 1, condition: Condition | None = None) -> None:
        self._geometry = geometry
        self._width = width
        self._condition = condition
        (self._height, _), halo = geometry.window, geometry.halo
        total = geometry.tiles(width) * geometry.tile_px + 2 * halo
        # With room for the lines of a group that is not complete when the last line of a window comes.
        rows = self._height + GROUP_LINES
        self._buffer = np.zeros((rows, total) if channels == 1 else (rows, total, channels), np.uint8)
        self._body = self._buffer[:, halo : halo + width]
        beyond = total - halo - width
        border = max(halo, beyond)
        source = halo + reflect(width, border)
        self._left_of, self._right_of = source[border - halo : border], source[border + width :][:beyond]
        self._edges = np.zeros((2, rows), np.float32)
        self._edges[1] = width
        self._start = self._end = self._conditioned = self._first = 0
        self._empty = True

    @property
    def window(self) -> Lines:
        """Where windows appear: uint8, as `Strip.window`."""
        return self._buffer[: self._height]

    @property
    def next_line(self) -> int | None:
        """Number of the line that would go on without a gap; None while there is none to follow."""
        return None if self._empty else self._end

    def add(self, lines: Lines, first_line: int) -> Iterator[Strip]:
        """Takes lines.

        Args:
            lines: uint8 (n, width[, channels]).
            first_line: Number of the first. Lines between it and the last one before are missing: `cut` comes first then.

        Yields:
            Every strip that they complete.
        """
        if self._empty:
            self._begin(first_line)
        taken = 0
        while taken < len(lines):
            row = self._end - self._window_line
            count = min(len(lines) - taken, len(self._buffer) - row)
            self._body[row : row + count] = lines[taken : taken + count]
            taken += count
            self._end += count
            self._prepare(self._end - self._end % GROUP_LINES)
            if self._conditioned - self._window_line >= self._height:
                yield self._strip(None)
                self._advance()

    def cut(self) -> Iterator[Strip]:
        """Ends the stretch: yields the strips whose context will not come any more."""
        if self._empty:
            return
        self._prepare(self._end)
        while self._first < self._end:
            yield self._strip(self._end)
            self._advance()
        self._empty = True

    @property
    def _window_line(self) -> int:
        """The line that the first row of the buffer stands for."""
        return self._first - self._geometry.halo

    def _begin(self, line: int) -> None:
        self._first = line - line % self._geometry.stride
        self._start = self._end = self._conditioned = line
        self._empty = False

    def _prepare(self, end: int) -> None:
        """Conditions the lines up to `end`, and fills what lies left and right of them."""
        if end <= self._conditioned:
            return
        rows = slice(self._conditioned - self._window_line, end - self._window_line)
        if self._condition is not None:
            self._edges[:, rows] = self._condition(self._body[rows], self._conditioned)
        halo = self._geometry.halo
        self._buffer[rows, :halo] = self._buffer[rows, self._left_of]
        self._buffer[rows, halo + self._width :] = self._buffer[rows, self._right_of]
        self._conditioned = end

    def _strip(self, stretch_end: int | None) -> Strip:
        geometry = self._geometry
        self._reflect()
        core = slice(geometry.halo, geometry.halo + geometry.strip_lines)
        return Strip(
            first_line=self._first,
            start=max(self._start, self._first),
            end=min(self._end, self._first + geometry.strip_lines),
            begins=self._start - self._start % geometry.stride == self._first,
            stretch_end=stretch_end,
            window=self.window,
            left=self._edges[0, core],
            right=self._edges[1, core],
        )

    def _reflect(self) -> None:
        """Fills the rows of the window before the stretch's first line and behind its last."""
        first = max(0, self._start - self._window_line)
        size = min(self._end - self._window_line, self._height) - first
        beyond = self._height - first - size
        border = max(first, beyond)
        if border:
            source = first + reflect(size, border)
            self._buffer[:first] = self._buffer[source[border - first : border]]
            self._buffer[first + size : self._height] = self._buffer[source[border + size :][:beyond]]
            # The edges of the web go straight on.
            self._edges[:, :first] = self._edges[:, first : first + 1]
            self._edges[:, first + size : self._height] = self._edges[:, first + size - 1 : first + size]

    def _advance(self) -> None:
        """Moves the context of the next strip to the top, in pieces that do not overlap."""
        shift = self._geometry.strip_lines
        kept = len(self._buffer) - shift
        for row in range(0, kept, shift):
            count = min(shift, kept - row)
            self._buffer[row : row + count] = self._buffer[row + shift : row + shift + count]
            self._edges[:, row : row + count] = self._edges[:, row + shift : row + shift + count]
        self._first += shift
