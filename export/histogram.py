"""Histograms of a tensor's values over many frames, and the range that eight bits hold with the least error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.floating[Any]]

_BINS = 4096  # on either side of zero
_LEVELS = 255
_ROUNDS = 2
# Bounds that are tried, as parts of the peak.
_CANDIDATES = np.arange(2, 101) / 100
# Where the bins begin to grow, far below what features can be: frexp gives zero the exponent of 0.5.
_LEAST_PEAK = 2.0**-100


class Histogram:
    """Counts of values in bins of equal width around zero, and their bounds.

    The bins end at a power of two above the largest magnitude. Where that grows, neighbours merge, which gives exactly
    the counts that bins of the new width would have had: the order of the frames does not matter.

    Attributes:
        low: Least value so far, at most 0: zero is what padding and rectifiers give, and must stay exact.
        high: Greatest value so far, at least 0.
    """

    def __init__(self) -> None:
        self.low = 0.0
        self.high = 0.0
        self._exponent: int | None = None
        self._counts = np.zeros(2 * _BINS, np.int64)

    @property
    def peak(self) -> float:
        """Largest magnitude so far."""
        return max(-self.low, self.high)

    def add(self, values: Floats) -> None:
        """Counts finite values, float32 of any shape."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        # frexp gives the power of two just above.
        exponent = math.frexp(max(self.peak, _LEAST_PEAK))[1]
        if self._exponent is None:
            self._exponent = exponent
        for _ in range(exponent - self._exponent):
            merged = np.zeros_like(self._counts)
            merged[_BINS // 2 : _BINS // 2 + _BINS] = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = merged
        self._exponent = max(exponent, self._exponent)
        bins = np.floor(values.ravel() * np.float32(_BINS / 2.0**self._exponent)).astype(np.int64) + _BINS
        self._counts += np.bincount(bins, minlength=2 * _BINS)

    def best_range(self, *, symmetric: bool) -> tuple[float, float]:
        """Bounds whose 8-bit grid represents the values with the least mean squared error.

        Clipping the few largest values makes the grid finer for all others. The bounds are shrunk in turn, each while
        the other is held.

        Args:
            symmetric: The grid reaches as far below zero as above.

        Returns:
            (low, high), low <= 0 <= high.
        """
        filled = np.flatnonzero(self._counts)
        if self.peak == 0 or self._exponent is None:
            return 0.0, 0.0
        centres = (filled - _BINS + 0.5) * (2.0**self._exponent / _BINS)
        counts = self._counts[filled].astype(np.float64)
        if symmetric:
            bounds = self.peak * _CANDIDATES
            best = float(bounds[np.argmin(_errors(centres, counts, -bounds, bounds))])
            return -best, best
        low, high = self.low, self.high
        for _ in range(_ROUNDS):
            highs, lows = self.high * _CANDIDATES, self.low * _CANDIDATES
            if self.high > 0:
                high = float(highs[np.argmin(_errors(centres, counts, np.full_like(highs, low), highs))])
            if self.low < 0:
                low = float(lows[np.argmin(_errors(centres, counts, lows, np.full_like(lows, high)))])
        return low, high


def _errors(centres: Doubles, counts: Doubles, lows: Doubles, highs: Doubles) -> Doubles:
    """Squared error of each pair of bounds."""
    steps = ((highs - lows) / _LEVELS)[:, None]
    zeros = np.round(-lows[:, None] / steps)
    rounded = (np.clip(np.round(centres / steps) + zeros, 0, _LEVELS) - zeros) * steps
    errors: Doubles = np.square(rounded - centres) @ counts
    return errors
