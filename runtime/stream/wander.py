"""How far an edge of the web wanders, in constant memory."""

import math

import numpy as np
import numpy.typing as npt

from flawline.runtime.events import Wander


class EdgeWander:
    """Mean, extremes and standard deviation of an edge over the whole stream.

    Parts are joined by their means and sums of squares about them (Chan, Golub, LeVeque 1983, equation 2.1), which does not
    lose digits however long the web is.
    """

    def __init__(self) -> None:
        self._lines = 0
        self._mean = self._squares = 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, edge: npt.NDArray[np.float32]) -> None:
        """Adds lines.

        Args:
            edge: float32 (n,), pixels.
        """
        if not edge.size:
            return
        mean, total = float(edge.mean(dtype=np.float64)), self._lines + edge.size
        squares = float(np.square(edge - np.float64(mean)).sum())
        step = mean - self._mean
        self._squares += squares + step * step * self._lines * edge.size / total
        self._mean += step * edge.size / total
        self._lines = total
        self._min, self._max = min(self._min, float(edge.min())), max(self._max, float(edge.max()))

    def measured(self, pixel_mm: float | None = None) -> Wander | None:
        """What was added so far; None if that is nothing.

        Args:
            pixel_mm: Distance of neighbouring pixels, if known.
        """
        if not self._lines:
            return None
        px = self._mean, self._min, self._max, math.sqrt(self._squares / self._lines)
        mean, least, most, std = (None if pixel_mm is None else value * pixel_mm for value in px)
        return Wander(self._lines, *px, mean, least, most, std)
