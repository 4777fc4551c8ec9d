"""What seams do to scores: of the same web in strips with context, and in strips without."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle import Bundle
from flawline.runtime.regions import find_regions
from flawline.runtime.web.inspector import WebInspector

Lines = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

FLAW_PX = 12
"""Height and width of the flaw that is moved."""


class Exactness(NamedTuple):
    """The map of a web in strips of one height against that of the web as one image.

    Attributes:
        strip_lines: Height of the strips.
        relative_error: Largest difference of the maps over the largest value.
        defects: Regions above the threshold.
        same_defects: Whether they are as many, each within a pixel of one of the whole web's.
    """

    strip_lines: int
    relative_error: float
    defects: int
    same_defects: bool


class Moved(NamedTuple):
    """A flaw at one place along the web.

    Attributes:
        line: Its first line.
        whole: Peak of the map of the whole web.
        strips: That in strips with context.
        naive: That in strips scored each by itself.
    """

    line: int
    whole: float
    strips: float
    naive: float


class Seams:
    """Scores pieces of one width with a bundle in strips of any height.

    Args:
        bundle: One for a web.
        width: Pixels of a line.
        backend: Name of the engine.
        threads: Of engine and kernel.
    """

    def __init__(self, bundle: Bundle, width: int, *, backend: str, threads: int) -> None:
        self._bundle = bundle
        self._width = width
        self._backend = backend
        self._threads = threads
        self._stride = bundle.manifest.network.total_stride
        self._opened: dict[int, WebInspector] = {}

    def map(self, piece: Lines, strip_lines: int | None = None) -> Map:
        """The map of a piece in strips of a height; as one image if None."""
        height = -(-len(piece) // self._stride) * self._stride if strip_lines is None else strip_lines
        if height not in self._opened:
            self._opened[height] = WebInspector(
                self._bundle, self._width, strip_lines=height, backend=self._backend, threads=self._threads
            )
        return self._opened[height].inspect_piece(piece)[0]

    def close(self) -> None:
        """Frees the engines."""
        for inspector in self._opened.values():
            inspector.close()

    def exactness(self, piece: Lines, strip_lines: int, whole: Map) -> Exactness:
        """Compares a piece in strips with its map as one image."""
        strips = self.map(piece, strip_lines)
        threshold = self._bundle.manifest.threshold.score
        size = (len(piece), self._width)
        expected, received = (find_regions(each, threshold, size) for each in (whole, strips))
        boxes = [sorted((r.x, r.y, r.width, r.height) for r in regions) for regions in (expected, received)]
        same = len(expected) == len(received) and all(
            abs(a - b) <= 1 for one, other in zip(*boxes, strict=True) for a, b in zip(one, other, strict=True)
        )
        error = float(np.abs(strips - whole).max() / whole.max())
        return Exactness(strip_lines, error, len(received), same)

    def moved(self, clean: Lines, flaw: Lines, line: int, strip_lines: int) -> Moved:
        """Puts a flaw on a web and scores it in three ways.

        Args:
            clean: uint8 (n, width), good web; n is a multiple of the strips' height.
            flaw: uint8 (h, w), what is put there.
            line: Its first line.
            strip_lines: Height of the strips.
        """
        piece = clean.copy()
        left = (self._width - flaw.shape[1]) // 2
        piece[line : line + len(flaw), left : left + flaw.shape[1]] = flaw
        naive = [self.map(piece[top : top + strip_lines], strip_lines) for top in range(0, len(piece), strip_lines)]
        return Moved(
            line,
            float(self.map(piece).max()),
            float(self.map(piece, strip_lines).max()),
            float(max(part.max() for part in naive)),
        )


def with_flaws(piece: Lines, flaw: Lines) -> Lines:
    """The piece, uint8 (n, width), with a flaw every 127 lines, at other places across."""
    flawed: Lines = piece.copy()
    for number, line in enumerate(range(63, len(piece) - len(flaw), 127)):
        left = (number * 61) % (piece.shape[1] - flaw.shape[1])
        flawed[line : line + len(flaw), left : left + flaw.shape[1]] = flaw
    return flawed
