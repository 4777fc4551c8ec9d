"""What is remembered of the last lines of the web: when they came, and where its edge was."""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BLOCKS = 4096
"""Arrivals that are remembered, and more where these hold fewer lines than are asked for."""

BYTES_PER_LINE = 256
"""What is remembered of a line takes at most so much: it came alone."""

SPEED_NS = 1_000_000_000
"""The web's speed is the mean over so long a time. When nothing new came for longer it has stood, or run back."""


class Arrival(NamedTuple):
    """Lines that came together.

    Attributes:
        first_line: Web line of the first.
        end: Web line behind the last.
        camera_time_ns: The source's clock at the last of them, nanoseconds.
        arrival_time_ns: `time.monotonic_ns()` when they were here.
    """

    first_line: int
    end: int
    camera_time_ns: int
    arrival_time_ns: int


class LineHistory:
    """Remembers arrivals and left edges, in bounded memory.

    Args:
        lines: Lines that are remembered: the longest region, and what lies between its end and its report.
    """

    def __init__(self, lines: int) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._left = np.full(lines, np.nan, np.float32)
        self._edge_end: int | None = None

    def arrived(self, first_line: int, lines: int, camera_time_ns: int, arrival_time_ns: int) -> None:
        """Remembers when lines came; they lie behind those before."""
        arrivals, end = self._arrivals, first_line + lines
        arrivals.append(Arrival(first_line, end, camera_time_ns, arrival_time_ns))
        while len(arrivals) > BLOCKS and arrivals[1].first_line <= end - len(self._left):
            arrivals.popleft()

    def edges(self, first_line: int, left: npt.NDArray[np.float32]) -> None:
        """Remembers where the web began on some lines.

        Args:
            first_line: Number of the first; those between it and the ones before have no edge.
            left: float32 (n,), left edge, pixels.
        """
        size = len(self._left)
        if self._edge_end is not None and first_line > self._edge_end:
            gap = np.arange(max(self._edge_end, first_line - size), first_line)
            self._left[gap % size] = np.nan
        self._edge_end = first_line + len(left)
        left = left[-size:]
        self._left[np.arange(self._edge_end - len(left), self._edge_end) % size] = left

    def arrival(self, line: int) -> Arrival | None:
        """The arrival that a line came with, or if it never came, the last before; the oldest if that is forgotten."""
        behind = bisect_right(self._arrivals, line, key=lambda arrival: arrival.first_line)
        return self._arrivals[max(0, behind - 1)] if self._arrivals else None

    def left_edge(self, line: int) -> float | None:
        """Left edge of the web on a line, pixels; None if it is not known, or no more."""
        if self._edge_end is None or not self._edge_end - len(self._left) <= line < self._edge_end:
            return None
        left = float(self._left[line % len(self._left)])
        return None if math.isnan(left) else left

    def travelled_mm(self, now_ns: int, millimetres: Callable[[float], float]) -> float | None:
        """How far the web has come.

        Args:
            now_ns: `time.monotonic_ns()`.
            millimetres: Position of the beginning of a web line.

        Returns:
            Position of what passes the camera now, taken to move on at its last speed, and with the first block after it
            has stood at that before; None before a speed is known.
        """
        arrivals, speeds = self._arrivals, [self._speed(0, millimetres)]
        if len(arrivals) > 1 and arrivals[-1].arrival_time_ns - arrivals[-2].arrival_time_ns > SPEED_NS:
            speeds.append(self._speed(1, millimetres))
        known = [speed for speed in speeds if speed is not None]
        if not known:
            return None
        return millimetres(arrivals[-1].end) + max(known) * (now_ns - arrivals[-1].arrival_time_ns)

    def _speed(self, skipped: int, millimetres: Callable[[float], float]) -> float | None:
        """Mean speed without so many of the last arrivals, millimetres per nanosecond; None if it is not known."""
        arrivals = islice(reversed(self._arrivals), skipped, None)
        newest = oldest = next(arrivals, None)
        if newest is None or oldest is None:
            return None
        for arrival in arrivals:
            if oldest is not newest and oldest.arrival_time_ns - arrival.arrival_time_ns > SPEED_NS:
                break  # the web stood
            oldest = arrival
            if newest.arrival_time_ns - oldest.arrival_time_ns >= SPEED_NS:
                break
        time_ns = newest.arrival_time_ns - oldest.arrival_time_ns
        return (millimetres(newest.end) - millimetres(oldest.end)) / time_ns if time_ns > 0 else None
