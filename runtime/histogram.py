"""Percentiles of an endless series in constant memory."""

import math

import msgspec
import numpy as np

BINS_PER_E = 100  # bins are 1 % wide
BINS = 3200  # from 1 us to e^32 us, which is forever


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of times, milliseconds; all but the maximum are rounded up by at most 1 %."""

    p50: float
    p90: float
    p99: float
    max: float


class Histogram:
    """Counts times in bins of equal ratio, so that an hour of frames takes no more memory than a second of them.

    Attributes:
        count: Times that were added.
    """

    def __init__(self) -> None:
        self._bins = np.zeros(BINS, np.int64)
        self._max_ns = 0
        self.count = 0

    def add(self, time_ns: int) -> None:
        """Adds a time, nanoseconds; up to 1 us they are all alike."""
        self._bins[min(BINS - 1, math.ceil(BINS_PER_E * math.log(max(time_ns, 1000) / 1000)))] += 1
        self._max_ns = max(self._max_ns, time_ns)
        self.count += 1

    def percentiles(self) -> Percentiles | None:
        """What was added so far; None if that is nothing."""
        if not self.count:
            return None
        cumulative = np.cumsum(self._bins)
        ranks = [math.ceil(share * self.count) for share in (0.5, 0.9, 0.99)]
        edges_ns = [1000 * math.exp(int(np.searchsorted(cumulative, rank)) / BINS_PER_E) for rank in ranks]
        p50, p90, p99 = (min(edge, self._max_ns) / 1e6 for edge in edges_ns)
        return Percentiles(p50, p90, p99, self._max_ns / 1e6)
