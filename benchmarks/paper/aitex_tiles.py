"""Tiles of fabric for a few-shot experiment: at the camera's resolution, wholly on the web, and told by strips.

Defective strips were recorded with another background and brightness than the good ones (see `web.aitex`). So the
flawless tiles of defective strips count as good, and strips are either fitted and chosen by, or evaluated.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flawline.benchmarks.paper.labelled_sets import GOOD, SIDE_PX, Images, Split
from flawline.benchmarks.web.aitex import BAD_PIXELS, folds, read_flaws, read_roll
from flawline.export.options import WebOptions
from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image
from flawline.runtime.progress import progress
from flawline.runtime.web.edges import EdgeFinder

_FLAW = "flaw"
# Of the flawless tiles of the strips that are fitted: kept out of the fit, to draw labelled ones from.
_HELD_OUT = 10


class _Tile(NamedTuple):
    strip: int
    name: str
    image: Images
    flawed: bool


class TileSet:
    """The tiles of a roll in two folds: labelled ones are drawn from strips that are fitted, others are evaluated.

    A tile is flawed from 30 masked pixels on and flawless without any; those between are left out.

    Args:
        data: Folder in the layout of `read_roll`.
        roll: Its number.
        seed: Of the draw of flawless tiles that are not fitted.

    Raises:
        InputError: There is no such roll, or a strip or a mask cannot be read or is too small.
    """

    per_kind = False
    divisions = 2

    def __init__(self, data: Path, roll: str, *, seed: int) -> None:
        self.name = f"aitex-{roll}"
        self._roll = read_roll(data, roll)
        self._seed = seed
        numbers = range(len(self._roll.strips))
        self._tiles = [tile for strip in progress(numbers, label=self.name, unit="strip") for tile in self._cut(strip)]

    def split(self, number: int) -> Split:
        """One of the two folds."""
        fold = folds(self._roll)[number]
        fitted, tested = ([tile for tile in self._tiles if tile.strip in part] for part in (fold.fit, fold.test))
        flawless = [tile for tile in fitted if not tile.flawed]
        order = np.random.Generator(np.random.Philox(key=self._seed)).permutation(len(flawless)).tolist()
        held_out = [flawless[index] for index in order[: len(order) // _HELD_OUT]]
        fit = [flawless[index] for index in sorted(order[len(order) // _HELD_OUT :])]
        if not fit or not tested:
            raise InputError(f"{self.name}: fold {number} has {len(fit)} tiles to fit and {len(tested)} to test")
        chosen_by = held_out + [tile for tile in fitted if tile.flawed]
        labelled = chosen_by + tested
        may_choose = np.arange(len(labelled)) < len(chosen_by)
        return Split(
            fit=np.stack([tile.image for tile in fit]),
            images=np.stack([tile.image for tile in labelled]),
            kinds=tuple(_FLAW if tile.flawed else GOOD for tile in labelled),
            names=tuple(tile.name for tile in labelled),
            may_choose=may_choose,
            may_test=~may_choose,
        )

    def _cut(self, number: int) -> list[_Tile]:
        strip = self._roll.strips[number]
        image = read_image(strip.path)
        if image.ndim != 2 or min(image.shape) < SIDE_PX:
            raise InputError(f"{strip.path} is {image.shape}; expected a grey strip of at least {SIDE_PX} px a side")
        flaws = read_flaws(strip, image.shape, SIDE_PX)
        left, right = EdgeFinder()(image, 0)
        margin = WebOptions().margin_px or 0
        tiles = []
        for row in range(image.shape[0] // SIDE_PX):
            lines = slice(row * SIDE_PX, (row + 1) * SIDE_PX)
            begin, end = left[lines].max() + margin, right[lines].min() - margin
            for column in range(image.shape[1] // SIDE_PX):
                at, flawed = column * SIDE_PX, int(flaws[row, column])
                if at < begin or at + SIDE_PX > end or 0 < flawed < BAD_PIXELS:
                    continue
                pixels = image[lines, at : at + SIDE_PX].copy()
                name = f"{strip.path.stem}/{lines.start}-{at}"
                tiles.append(_Tile(number, name, pixels, flawed >= BAD_PIXELS))
        return tiles
