"""AUROC over tiles of strips, and how far it varies with the strips: tiles of one strip are alike, so strips are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Wins:
    """How often bad tiles of a strip scored above good tiles of another; resampling strips only weighs these counts.

    Attributes:
        count: float64 (n, n), of bad tiles of the row's strip against good tiles of the column's; a tie counts half.
        bad: float64 (n,), bad tiles of each strip.
        good: float64 (n,), good tiles of each strip.
    """

    count: npt.NDArray[np.float64]
    bad: npt.NDArray[np.float64]
    good: npt.NDArray[np.float64]

    def auroc(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Area under the ROC with each strip taken so many times.

        Args:
            weights: float64 (draws, n).

        Returns:
            float64 (draws,), NaN where no bad or no good tile was drawn.
        """
        pairs = (weights @ self.bad) * (weights @ self.good)
        won = ((weights @ self.count) * weights).sum(axis=1)
        auroc = np.full(len(pairs), np.nan)
        np.divide(won, pairs, out=auroc, where=pairs > 0)
        return auroc


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and how sure it is.

    Attributes:
        mean: Over seeds and folds.
        low: Lower end of a 95 % interval from drawing the strips again.
        high: Its upper end.
        seeds: The mean over folds, for each seed.
    """

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        """Mean and interval."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wins(scores: Sequence[npt.NDArray[np.float64]], bad: Sequence[npt.NDArray[np.bool_]]) -> Wins:
    """Compares all tiles with each other.

    Args:
        scores: float64 (tiles,) of each strip.
        bad: bool (tiles,) of each strip.

    Raises:
        InputError: There are no bad or no good tiles, or a score is not finite.
    """
    owner = np.repeat(np.arange(len(scores)), [len(one) for one in scores])
    every, is_bad = np.concatenate(scores), np.concatenate(bad)
    if not np.isfinite(every).all():
        raise InputError(f"{np.count_nonzero(~np.isfinite(every))} tiles score NaN or infinite: expected finite scores")
    if is_bad.all() or not is_bad.any():
        raise InputError(f"{np.count_nonzero(is_bad)} of {is_bad.size} tiles are bad: expected good and bad ones")
    n = len(scores)
    low, high = every[~is_bad], every[is_bad]
    beaten = (high[:, None] > low).astype(np.float64) + 0.5 * (high[:, None] == low)
    count = np.zeros((n, n))
    np.add.at(count, (owner[is_bad][:, None], owner[~is_bad][None, :]), beaten)
    return Wins(
        count,
        np.bincount(owner[is_bad], minlength=n).astype(np.float64),
        np.bincount(owner[~is_bad], minlength=n).astype(np.float64),
    )


def estimate(seeds: Sequence[Sequence[Wins]], draws: int, seed: int) -> Estimate:
    """The mean AUROC over seeds and folds, with a bootstrap interval over strips.

    The strips of each fold are drawn with replacement, the same ones for all seeds, which saw the same web; draws in which a
    fold has no bad or no good tile say nothing and are left out.

    Args:
        seeds: Wins in each fold, for each seed.
        draws: Of the bootstrap.
        seed: Of those.

    Raises:
        InputError: Hardly any draw has good and bad tiles.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    per_seed = np.array([[float(fold.auroc(np.ones((1, len(fold.bad))))[0]) for fold in folds] for folds in seeds])
    drawn = np.zeros(draws)
    for number, fold in enumerate(seeds[0]):
        strips = len(fold.bad)
        weights = generator.multinomial(strips, np.full(strips, 1 / strips), size=draws).astype(np.float64)
        drawn += np.mean([folds[number].auroc(weights) for folds in seeds], axis=0) / len(seeds[0])
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size < draws / 2:
        raise InputError(f"only {drawn.size} of {draws} draws of strips have good and bad tiles: give more strips")
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(per_seed.mean()), float(low), float(high), tuple(map(float, per_seed.mean(axis=1))))
