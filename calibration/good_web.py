"""Good web to fit: pieces of it, conditioned as the stream conditions them, cut into the windows that the stream cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration.web_pieces import Lines, Piece
from flawline.runtime.bundle.manifest import Web
from flawline.runtime.errors import InputError
from flawline.runtime.kernels.interpolation import reflect
from flawline.runtime.web.conditioning import Conditioner
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.stitching import cells_inside


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A piece as it is inspected.

    Attributes:
        pixels: uint8 (lines, width[, 3]), shading out.
        left: float32 (lines,), left edge of the web.
        right: float32 (lines,), right edge.
    """

    pixels: Lines
    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Window:
    """A tile of good web with its context: what the network sees of it.

    Attributes:
        web: Where it is from.
        piece: Of that.
        first_line: First line of the tile in the piece.
        x: First pixel of the tile.
    """

    web: GoodWeb = field(repr=False)
    piece: Piece
    first_line: int
    x: int

    def read(self) -> Lines:
        """Its pixels: uint8 (strip_lines + 2 halo, tile_px + 2 halo[, 3])."""
        geometry, pixels = self.web.geometry, self.web.conditioned(self.piece).pixels
        rows = _window(len(pixels), self.first_line, geometry.strip_lines, geometry.halo)
        columns = _window(pixels.shape[1], self.x, geometry.tile_px, geometry.halo)
        return np.ascontiguousarray(pixels[rows[:, None], columns])

    def inside(self) -> npt.NDArray[np.bool_]:
        """Which positions of its map are web, of its own tile and between the edges: bool (h, w)."""
        geometry, conditioned = self.web.geometry, self.web.conditioned(self.piece)
        stop = min(len(conditioned.left), self.first_line + geometry.strip_lines)
        lines = slice(self.first_line, stop)
        inside = np.zeros(geometry.map_size, np.bool_)
        core = inside[geometry.core]
        cells = cells_inside(
            conditioned.left[lines],
            conditioned.right[lines],
            conditioned.pixels.shape[1],
            geometry.map_stride,
            self.web.margin_px,
        )
        first = self.x // geometry.map_stride
        own = cells[:, first : first + core.shape[1]]
        core[: len(own), : own.shape[1]] = own
        return inside


class GoodWeb:
    """Pieces of good web in one geometry, conditioned as the stream conditions them.

    Args:
        pieces: All of one width and mode.
        geometry: Of strips and tiles.
        web: Edges and shading.
    """

    def __init__(self, pieces: Sequence[Piece], geometry: Geometry, web: Web) -> None:
        self.pieces = pieces
        self.geometry = geometry
        self.facts = web
        self.margin_px = 0 if web.edges is None else web.edges.margin_px
        # Windows come piece by piece; those of two are at hand.
        self.conditioned = lru_cache(maxsize=2)(self._condition)

    def _condition(self, piece: Piece) -> Conditioned:
        pixels = np.array(piece.load())
        conditioner = Conditioner(self.facts)
        left, right = conditioner(pixels, 0)
        return Conditioned(pixels, left, right)

    def windows(self, pieces: Sequence[Piece]) -> list[Window]:
        """The windows of some pieces that hold any web, in order."""
        geometry, windows = self.geometry, []
        for piece in pieces:
            for line in range(0, piece.lines, geometry.strip_lines):
                for x in range(0, piece.width, geometry.tile_px):
                    window = Window(self, piece, line, x)
                    if window.inside().any():
                        windows.append(window)
        if not windows:
            raise InputError("no web lies between the edges that were found on the good web; try --no-edges")
        return windows

    def strips(self, pieces: Sequence[Piece]) -> int:
        """How many strips some pieces make."""
        return sum(-(-piece.lines // self.geometry.strip_lines) for piece in pieces)


def brightness(pieces: Sequence[Piece], web: Web) -> float:
    """Mean brightness between the edges of good web, grey levels."""
    # The edges are found in what the camera saw.
    unshaded = msgspec.structs.replace(web, shading=None)
    totals = [0.0, 0.0]
    for piece in pieces:
        pixels = np.array(piece.load())
        left, right = Conditioner(unshaded)(pixels, 0)
        first, last = round(float(np.median(left))), round(float(np.median(right)))
        part = pixels[:, first:last]
        totals[0] += float(part.sum(dtype=np.float64))
        totals[1] += part.size
    if not totals[1]:
        raise InputError("no web lies between the edges that were found on the good web; try --no-edges")
    return max(1.0, totals[0] / totals[1])


def _window(size: int, first: int, length: int, halo: int) -> npt.NDArray[np.int32]:
    """Pixels of an axis that a window with its context shows, reflected beyond the ends."""
    border = halo + length
    return reflect(size, border)[first - halo + border :][: length + 2 * halo]
