"""A roll on the bench: its features under the conditions that are asked for, and what its tiles are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.web.aitex import BAD_PIXELS, Fold, Roll, read_flaws
from flawline.benchmarks.web.auroc import Wins, wins
from flawline.benchmarks.web.choice import Variant
from flawline.benchmarks.web.features import Conditions, RollFeatures
from flawline.benchmarks.web.scoring import ProjectedRoll, TileScores, fit, spread
from flawline.calibration.statistics import StatisticsOptions
from flawline.runtime.images import read_image


@dataclass(eq=False)
class Bench:
    """Fits and tests variants on a roll.

    Attributes:
        roll: Its strips.
        collect: Gives its features under some conditions; called once for each.
        tile_px: Height and width of a tile, camera pixels.
        threads: Threads that compute.
        flaws: int64 (rows, columns) of each strip, flawed pixels of its tiles.
    """

    roll: Roll
    collect: Callable[[Conditions], RollFeatures]
    tile_px: int
    threads: int
    flaws: list[npt.NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        """Reads the masks."""
        size = read_image(self.roll.strips[0].path).shape[:2]
        self.flaws = [read_flaws(strip, size, self.tile_px) for strip in self.roll.strips]
        self._features = lru_cache(maxsize=None)(self.collect)
        # Both folds, and models of several components, share a projection.
        self._projected = lru_cache(maxsize=2)(self._project)

    def _project(self, conditions: Conditions, layers: tuple[int, ...], dimension: int, seed: int) -> ProjectedRoll:
        features = self._features(conditions)
        depth = sum(features.channels[layer] for layer in layers)
        return ProjectedRoll(features, layers, min(dimension, depth), seed)

    def test(self, variant: Variant, fold: Fold, *, dimension: int, components: int, seed: int) -> Wins:
        """Fits the flawless tiles of some strips and scores the tiles of others.

        Args:
            variant: How.
            fold: Which strips.
            dimension: Channels d of an embedding; no more than the layers have.
            components: Gaussians of the web.
            seed: Of projection and mixture.

        Raises:
            InputError: There is too little web, or no bad or no good tile to test.
        """
        conditions = variant.conditions
        projected = self._projected(conditions, variant.layers, dimension, seed)
        features = projected.roll
        tile_px, margin_px = self.tile_px // conditions.shrink, variant.margin_px // conditions.shrink
        cells = tile_px // features.geometry.map_stride
        chosen = {}
        for strip in fold.fit:
            inside = features.inside(strip, margin_px)
            chosen[strip] = inside & spread(self.flaws[strip] == 0, inside.shape, cells)
        gaussians = fit(projected, chosen, StatisticsOptions(tie="global", components=components, seed=seed))
        score = TileScores(features, tile_px, variant.smoothing_px, margin_px)
        scores, bad = [], []
        for strip in fold.test:
            tiles = score(projected.vectors(strip), features.strips[strip], gaussians, self.threads).ravel()
            flaws = self.flaws[strip].ravel()
            used = np.isfinite(tiles) & ((flaws == 0) | (flaws >= BAD_PIXELS))
            scores.append(tiles[used].astype(np.float64))
            bad.append(flaws[used] > 0)
        return wins(scores, bad)
