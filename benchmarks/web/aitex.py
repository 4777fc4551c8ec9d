"""Rolls of fabric in the layout of the AITEX set, and who is fitted and who is tested in which fold.

Defective strips were recorded with another background and brightness than the good ones. So the flawless tiles of
defective strips belong to the test, and, from other strips, to the fit; otherwise recordings are told apart, not flaws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image

FIT_GOOD = 14
"""Good strips that are fitted; the rest of them is tested."""

BAD_PIXELS = 30
"""A tile with so many flawed pixels is bad, one with none is good, and those between are left out."""

_FLAWED = 128


@dataclass(frozen=True)
class StripImage:
    """A strip of a roll.

    Attributes:
        path: Its image.
        mask: Where it is flawed; None for a good strip.
    """

    path: Path
    mask: Path | None = None


@dataclass(frozen=True)
class Roll:
    """A roll of one fabric.

    Attributes:
        name: Its number.
        strips: First the good ones, as they follow each other on the roll, then the defective ones by name.
        good: How many of them are good.
    """

    name: str
    strips: tuple[StripImage, ...]
    good: int


@dataclass(frozen=True)
class Fold:
    """Numbers of strips that are fitted and tested; of a defective strip that is fitted, its flawless tiles."""

    fit: tuple[int, ...]
    test: tuple[int, ...]


class _Stream(msgspec.Struct):
    strips: list[str]


def read_roll(data: Path, name: str) -> Roll:
    """Finds the strips of a roll.

    Args:
        data: Folder with `streams.json`, `good/ROLL`, `defect` and `mask`; the mask of a strip has its file's name.
        name: Number of the roll, which the names of its defective strips end with.

    Raises:
        InputError: There is no such roll, or an image is missing.
    """
    index = data / "streams.json"
    try:
        streams = msgspec.json.decode(index.read_bytes(), type=dict[str, _Stream])
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{index}: {error}; expected the strips of each roll, as JSON") from error
    if name not in streams:
        raise InputError(f"{index} has no roll '{name}'; expected one of {', '.join(streams)}")
    good = [StripImage(data / "good" / name / Path(strip).name) for strip in streams[name].strips]
    defective = [
        StripImage(path, data / "mask" / path.name) for path in sorted((data / "defect").glob(f"*_{name}.png"))
    ]
    if len(good) <= FIT_GOOD or len(defective) < 4:
        raise InputError(
            f"roll {name} has {len(good)} good and {len(defective)} defective strips; expected more than {FIT_GOOD} and at "
            "least 4"
        )
    for strip in (*good, *defective):
        for path in filter(None, (strip.path, strip.mask)):
            if not path.is_file():
                raise InputError(f"{path} is missing; roll {name} needs it")
    return Roll(name, (*good, *defective), len(good))


def folds(roll: Roll) -> tuple[Fold, ...]:
    """The two folds: each fits the first good strips and every second defective one, and tests the rest."""
    defective = range(roll.good, len(roll.strips))
    return _halves(range(FIT_GOOD), range(FIT_GOOD, roll.good), defective)


def validation(roll: Roll, fold: Fold) -> tuple[Fold, ...]:
    """Two folds of the strips that a fold fits, to choose by without a look at those that it tests.

    The good strips that are not fitted here are the last quarter of those that are fitted there.
    """
    good = [strip for strip in fold.fit if strip < roll.good]
    kept = len(good) - max(1, len(good) // 4)
    return _halves(good[:kept], good[kept:], [strip for strip in fold.fit if strip >= roll.good])


def flawed_pixels(mask: npt.NDArray[np.uint8], tile_px: int) -> npt.NDArray[np.int64]:
    """Flawed pixels of each tile.

    Args:
        mask: uint8 (height, width), flawed from 128 on.
        tile_px: Height and width of a tile; those at the end may be smaller.

    Returns:
        int64 (rows, columns).
    """
    rows = np.add.reduceat((mask >= _FLAWED).astype(np.int64), np.arange(0, mask.shape[0], tile_px), axis=0)
    return np.asarray(np.add.reduceat(rows, np.arange(0, mask.shape[1], tile_px), axis=1), np.int64)


def read_flaws(strip: StripImage, size: tuple[int, int], tile_px: int) -> npt.NDArray[np.int64]:
    """Flawed pixels of each tile of a strip of that height and width; see `flawed_pixels`.

    Raises:
        InputError: The mask cannot be read, or is of another size.
    """
    if strip.mask is None:
        return flawed_pixels(np.zeros(size, np.uint8), tile_px)
    mask = read_image(strip.mask)
    if mask.shape[:2] != size:
        raise InputError(
            f"{strip.mask} has {mask.shape[0]} lines of {mask.shape[1]} px; expected {size[0]} of {size[1]}, as its strip"
        )
    return flawed_pixels(mask if mask.ndim == 2 else mask.max(axis=2), tile_px)


def _halves(fit: Sequence[int], test: Sequence[int], defective: Sequence[int]) -> tuple[Fold, ...]:
    return tuple(Fold(fit=(*fit, *defective[half::2]), test=(*test, *defective[1 - half :: 2])) for half in range(2))
