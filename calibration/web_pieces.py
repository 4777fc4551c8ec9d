"""Stretches of good web: read from images or a source, and split into what is fitted and what is held out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flawline.calibration.conformal import images_needed
from flawline.calibration.web_flat_field import KnownFlatField
from flawline.calibration.web_source import take_stretches
from flawline.runtime.cameras import SCHEMES
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image
from flawline.runtime.progress import progress

Lines = npt.NDArray[np.uint8]

_HELD_SHARE = 0.2
_MOST_HELD_SHARE = 0.5
_PARTS = 10
"""Stretches at least that the split can choose from, of web that is long enough."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of good web without a gap.

    Attributes:
        name: In messages.
        load: Gives its pixels, uint8 (lines, width[, 3]).
        lines: Its length.
        width: Pixels of a line.
        channels: 1 for grey, 3 for RGB.
        sha256: Of these pixels.
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


def read_pieces(
    good: str,
    flat_field: KnownFlatField | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> list[Piece]:
    """Good web.

    Args:
        good: A folder, whose images are pieces of their own, or the spec of a source, which is one web; its gaps divide it.
        flat_field: Taken out of every line, if given, as the stream does it.
        say: Takes each line that tells what was left out.

    Raises:
        InputError: There is none, or it differs in width or mode, or the flat field is of another.
        ResourceError: What a source gives would not fit into memory.
    """
    # A spec may be longer than a name that a file system can look up, and what has the name of a scheme is one.
    kind, colon, _ = good.partition(":")
    is_spec = bool(colon) and (kind in SCHEMES or not os.path.exists(good))  # noqa: PTH110 - never raises
    pieces = _from_source(good, flat_field, say) if is_spec else _from_images(Path(good), flat_field)
    widths: dict[tuple[int, int], str] = {}
    for piece in pieces:
        widths.setdefault((piece.width, piece.channels), piece.name)
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

    Whole pieces are held out, since neighbouring lines are alike; long ones are cut first.

    Args:
        pieces: Good web.
        strip_lines: Height of a strip, of which each gives a score.
        false_reject_rate: R; at least 1 / R - 1 strips are held out, or a fifth if that is more, but no more than half.
        seed: Of the draw.

    Returns:
        Pieces to fit and pieces held out.

    Raises:
        InputError: There is too little web.
    """
    strips = sum(-(-piece.lines // strip_lines) for piece in pieces)
    needed, possible = images_needed(false_reject_rate), int(_MOST_HELD_SHARE * strips)
    if needed > possible:
        smallest = (
            f"the smallest rate that can be had is {1 / (possible + 1):.4g}" if possible else "that is too little"
        )
        raise InputError(
            f"{strips} strips of {strip_lines} lines of good web and a false-reject rate of {false_reject_rate:g}, which needs "
            f"{needed} held-out strips, but no more than half; {smallest} (--false-reject-rate); lower strips "
            "(--strip-lines) or more web would do as well"
        )
    needed = max(needed, round(_HELD_SHARE * strips))
    pieces = [part for piece in pieces for part in _cut(piece, strip_lines, max(1, strips // _PARTS))]
    held_out: list[Piece] = []
    count = 0
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(pieces)).tolist()
    for index in order:
        if count >= needed:
            break
        held_out.append(pieces[index])
        count += -(-pieces[index].lines // strip_lines)
    fitted = [piece for piece in pieces if piece not in held_out]
    return fitted, [piece for piece in pieces if piece in held_out]


def fingerprint(pieces: Sequence[Piece]) -> str:
    """Hash over the contents of pieces, whatever their names and order."""
    return hashlib.sha256("".join(sorted(piece.sha256 for piece in pieces)).encode()).hexdigest()


def _cut(piece: Piece, strip_lines: int, most_strips: int) -> Iterator[Piece]:
    """A piece in parts of so many strips; whole if it has less than twice as many."""
    if piece.lines <= (2 * most_strips - 1) * strip_lines:
        yield piece
        return
    step = most_strips * strip_lines
    for start in range(0, piece.lines, step):
        yield piece.part(start, min(piece.lines, start + step))


def _from_images(folder: Path, flat_field: KnownFlatField | None) -> list[Piece]:
    paths = [folder] if os.path.isfile(folder) else list_images(folder)  # noqa: PTH113 - never raises

    def load(path: Path) -> Lines:
        pixels = read_image(path)
        if flat_field is None:
            return pixels
        corrected = np.array(pixels, order="C")
        flat_field.corrector(corrected.shape[1:])(corrected)
        return corrected

    return [_piece(path.name, load(path), partial(load, path)) for path in progress(paths, label="checking")]


def _from_source(spec: str, flat_field: KnownFlatField | None, say: Callable[[str], object]) -> list[Piece]:
    return [
        _piece(f"stretch {number} of {spec}", pixels, partial(_same, pixels))
        for number, pixels in enumerate(take_stretches(spec, flat_field, say))
    ]


def _piece(name: str, pixels: Lines, load: Callable[[], Lines]) -> Piece:
    return Piece(
        name,
        load,
        len(pixels),
        pixels.shape[1],
        1 if pixels.ndim == 2 else 3,
        hashlib.sha256(pixels.tobytes()).hexdigest(),
    )


def _same(pixels: Lines) -> Lines:
    return pixels
