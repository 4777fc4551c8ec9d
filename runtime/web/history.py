"""What is remembered of the last lines of the web: when they came, and where its edge was."""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST_BLOCKS = 4096
"""Arrivals that are remembered."""

SPEED_NS = 1_000_000_000
"""The web's speed is the mean over so long a time."""


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
        lines: Lines whose edges are remembered: the longest region, and what lies between its end and its report.
    """

    def __init__(self, lines: int) -> None:
        self._arrivals: deque[Arrival] = deque(maxlen=MOST_BLOCKS)
        self._left = np.full(lines, np.nan, np.float32)
        self._edge_end: int | None = None

    def arrived(self, first_line: int, lines: int, camera_time_ns: int, arrival_time_ns: int) -> None:
        """Remembers when lines came; they lie behind those before."""
        self._arrivals.append(Arrival(first_line, first_line + lines, camera_time_ns, arrival_time_ns))

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
        for arrival in reversed(self._arrivals):
            if arrival.first_line <= line:
                return arrival
        return self._arrivals[0] if self._arrivals else None

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
            Position of what passes the camera now, taken to move on at its last speed; None before the speed is known.
        """
        if not self._arrivals:
            return None
        newest = self._arrivals[-1]
        for oldest in reversed(self._arrivals):
            if newest.arrival_time_ns - oldest.arrival_time_ns >= SPEED_NS:
                break
        time_ns = newest.arrival_time_ns - oldest.arrival_time_ns
        if time_ns <= 0:
            return None
        position = millimetres(newest.end)
        return position + (position - millimetres(oldest.end)) * (now_ns - newest.arrival_time_ns) / time_ns
