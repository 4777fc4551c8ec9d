"""Good web to fit: pieces with a beginning and an end, cut into the windows that the stream cuts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flawline.calibration.conformal import images_needed
from flawline.runtime.bundle.manifest import Web
from flawline.runtime.cameras import Status, line_shape, open_source
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image
from flawline.runtime.kernels.interpolation import reflect
from flawline.runtime.memory import require
from flawline.runtime.progress import progress
from flawline.runtime.web.conditioning import Conditioner
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.stitching import cells_inside

Lines = npt.NDArray[np.uint8]

MOST_LINES = 32_768
"""Lines that are taken from a source."""

_HELD_SHARE = 0.2
_FEWEST_PIECES = 5
_READ_TIMEOUT_S = 5.0


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of good web without a gap.

    Attributes:
        name: For messages.
        load: Gives its pixels, uint8 (lines, width[, 3]).
        lines: Its length.
        width: Pixels of a line.
        channels: 1 for grey, 3 for RGB.
        sha256: Of its pixels.
    """

    name: str
    load: Callable[[], Lines]
    lines: int
    width: int
    channels: int
    sha256: str

    def part(self, start: int, stop: int) -> Piece:
        """Some of its lines, as a piece of their own."""
        return replace(
            self,
            name=f"{self.name}, lines {start} to {stop - 1}",
            load=lambda: self.load()[start:stop],
            lines=stop - start,
            sha256=hashlib.sha256(f"{self.sha256} {start} {stop}".encode()).hexdigest(),
        )


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


def read_pieces(good: str) -> list[Piece]:
    """Good web.

    Args:
        good: A folder, whose images are pieces of their own, or the spec of a source, which is one web; its gaps divide it.

    Raises:
        InputError: There is none, or it differs in width or mode.
        ResourceError: What a source gives would not fit into memory.
    """
    path = Path(good)
    pieces = _from_images(path) if path.exists() or ":" not in good else _from_source(good)
    widths = {(piece.width, piece.channels): piece.name for piece in pieces}
    if len(widths) > 1:
        (first, name), (second, other) = list(widths.items())[:2]
        raise InputError(
            f"{other} has lines of {second[0]} px in {second[1]} channels, {name} of {first[0]} px in {first[1]}; expected "
            "good web of one width and mode"
        )
    return pieces


def split_pieces(
    pieces: Sequence[Piece], strip_lines: int, *, false_reject_rate: float, seed: int
) -> tuple[list[Piece], list[Piece]]:
    """Splits good web into what is fitted and what is held out for the threshold.

    Whole pieces are held out, since neighbouring lines are alike; if there are few, they are cut first.

    Args:
        pieces: Good web.
        strip_lines: Height of a strip, of which each gives a score.
        false_reject_rate: R; at least 1 / R - 1 strips are held out, or a fifth if that is more.
        seed: Of the draw.

    Returns:
        Pieces to fit and pieces held out.

    Raises:
        InputError: There is too little web.
    """
    strips = sum(-(-piece.lines // strip_lines) for piece in pieces)
    needed = max(images_needed(false_reject_rate), round(_HELD_SHARE * strips))
    if len(pieces) < _FEWEST_PIECES:
        pieces = [part for piece in pieces for part in _cut(piece, strip_lines)]
    held_out: list[Piece] = []
    count = 0
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(pieces)).tolist()
    for index in order:
        if count >= needed:
            break
        held_out.append(pieces[index])
        count += -(-pieces[index].lines // strip_lines)
    fitted = [piece for piece in pieces if piece not in held_out]
    if count < needed or not fitted:
        raise InputError(
            f"{strips} strips of {strip_lines} lines of good web and a false-reject rate of {false_reject_rate:g}, which needs "
            f"{images_needed(false_reject_rate)} held-out strips besides those to fit; expected more web, lower strips "
            "(--strip-lines) or a higher rate (--false-reject-rate)"
        )
    return fitted, [piece for piece in pieces if piece in held_out]


def brightness(pieces: Sequence[Piece], web: Web) -> float:
    """Mean brightness between the edges of good web, grey levels."""
    totals = [0.0, 0.0]
    for piece in pieces:
        pixels = np.array(piece.load())
        left, right = Conditioner(replace_shading(web))(pixels, 0)
        first, last = round(float(np.median(left))), round(float(np.median(right)))
        part = pixels[:, first:last]
        totals[0] += float(part.sum(dtype=np.float64))
        totals[1] += part.size
    if not totals[1]:
        raise InputError("no web lies between the edges that were found on the good web; try --no-edges")
    return max(1.0, totals[0] / totals[1])


def replace_shading(web: Web) -> Web:
    """The same web with its shading left in."""
    return Web(halo=web.halo, ring=web.ring, edges=web.edges)


def _cut(piece: Piece, strip_lines: int) -> Iterator[Piece]:
    """At least five parts of a piece, whole strips but for the last, if it has as many."""
    strips = -(-piece.lines // strip_lines)
    step = max(1, strips // (2 * _FEWEST_PIECES)) * strip_lines
    for start in range(0, piece.lines, step):
        yield piece.part(start, min(piece.lines, start + step))


def _from_images(folder: Path) -> list[Piece]:
    paths = [folder] if folder.is_file() else list_images(folder)
    pieces = []
    for path in progress(paths, label="checking"):
        pixels = read_image(path)
        pieces.append(
            Piece(
                path.name,
                lambda path=path: read_image(path),  # type: ignore[misc]
                len(pixels),
                pixels.shape[1],
                1 if pixels.ndim == 2 else 3,
                hashlib.sha256(pixels.tobytes()).hexdigest(),
            )
        )
    return pieces


def _from_source(spec: str) -> list[Piece]:
    source = open_source(spec)
    try:
        shape = line_shape(source)
        require(MOST_LINES * int(np.prod(shape)), f"{MOST_LINES} lines of {spec}", "use a narrower web")
        buffer = np.empty((source.block_lines, *shape), np.uint8)
        stretches: list[list[Lines]] = [[]]
        line: int | None = None
        taken = 0
        while taken < MOST_LINES:
            info = source.read(buffer, _READ_TIMEOUT_S)
            if info.status is Status.END:
                break
            if info.status is Status.TIMEOUT:
                raise InputError(f"source {spec!r} gives no lines; expected good web")
            if info.status is not Status.OK or line not in (None, info.first_line):
                stretches.append([])
            line = info.first_line + info.lines
            if info.status is Status.OK:
                stretches[-1].append(buffer[: info.lines].copy())
                taken += info.lines
    finally:
        source.close()
    pieces = []
    for number, blocks in enumerate(filter(None, stretches)):
        pixels = np.concatenate(blocks)
        pieces.append(
            Piece(
                f"stretch {number} of {spec}",
                lambda pixels=pixels: pixels,  # type: ignore[misc]
                len(pixels),
                source.width,
                source.channels,
                hashlib.sha256(pixels.tobytes()).hexdigest(),
            )
        )
    if not pieces:
        raise InputError(f"source {spec!r} gives no lines; expected good web")
    return pieces


def _window(size: int, first: int, length: int, halo: int) -> npt.NDArray[np.int32]:
    """Pixels of an axis that a window with its context shows, reflected beyond the ends."""
    border = halo + length
    return reflect(size, border)[first - halo + border :][: length + 2 * halo]
