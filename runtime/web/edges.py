"""Where the web begins and ends on each line, beside a table that may be brighter or darker."""

from collections import deque
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule
from flawline.runtime.web.strips import GROUP_LINES, Lines

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

Floats = npt.NDArray[np.float32]

CONTRAST = 10.0
"""Grey levels by which table and web must differ."""

_STEP_PX = 24
"""An edge is a step between the means of so many pixels on either side of it: shading is slower, threads are thinner."""

_NOISE = 6.0
"""Steps must exceed those of the web itself by this factor, as a robust standard deviation of theirs."""

_SKIP_PX, _LEVEL_PX = 128, 256
"""The web's own brightness is taken of so many pixels, behind a selvedge of so many at most."""

_THREAD_PX, _SIDE_PX = 32, 64
"""Within the first of a step there may be a thread; the second on either side of that then look alike."""

_VOTES = 16
"""Groups of lines that say by majority where the edge is; a web that wanders further in that time is followed with a lag."""

_WANDER_PX = 48
"""How far a group may be from the majority."""

_LINE_STEP_PX, _LINE_REACH_PX, _LINE_WANDER_PX = 6, 16, 6
"""On a single line: pixels on either side of the step, reach of the search, and how far it may be from its neighbours."""


class EdgeFinder:
    """Finds both edges of the web on each line.

    The average of `GROUP_LINES` lines is searched from the outside for a step that has another brightness outside than
    inside; the last groups vote on where it is, near there the group has a step of its own, and near that each line.
    Without a step the web reaches to the border of the image. What is found on a line depends on that line's group and on
    the ones before it in the same stretch, not on how lines were cut into calls.
    """

    def __init__(self) -> None:
        self._sides = (_Side(), _Side())
        self._next_line: int | None = None

    def __call__(self, lines: Lines, first_line: int) -> tuple[Floats, Floats]:
        """Finds the edges.

        Args:
            lines: uint8 (n, width[, 3]), whole groups, but for the first and the last of a stretch.
            first_line: Number of the first; groups begin at multiples of `GROUP_LINES`.

        Returns:
            Left edge, the first pixel of the web, and right edge, the pixel behind its last: float32 (n,) each.
        """
        if first_line != self._next_line:
            for side in self._sides:
                side.forget()
        self._next_line = first_line + len(lines)
        grey = lines if lines.ndim == 2 else np.asarray(cv2.cvtColor(lines, cv2.COLOR_RGB2GRAY), np.uint8)
        parts = groups(len(lines), first_line)
        profiles = np.stack([cv2.reduce(grey[part], 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0] for part in parts])
        left = self._sides[0].find(grey, profiles, parts)
        right = grey.shape[1] - self._sides[1].find(grey[:, ::-1], profiles[:, ::-1], parts)
        return left, np.maximum(left, right)


def groups(count: int, first_line: int) -> list[slice]:
    """The groups that consecutive lines belong to; the first and the last may be cut short."""
    starts = [0, *range(GROUP_LINES - first_line % GROUP_LINES, count, GROUP_LINES)]
    return [slice(start, stop) for start, stop in zip(starts, (*starts[1:], count), strict=True)]


class _Side:
    """The left edge of lines; the right one is that of the lines mirrored."""

    def __init__(self) -> None:
        self._votes: deque[int] = deque(maxlen=_VOTES)

    def forget(self) -> None:
        """A new stretch begins."""
        self._votes.clear()

    def find(self, grey: Lines, profiles: Floats, parts: list[slice]) -> Floats:
        """The edge on each line of each group: float32 (n,); 0 where the web reaches the border."""
        edges = np.zeros(len(grey), np.float32)
        # The web's other edge lies in the other half.
        reach = max(2 * _STEP_PX, grey.shape[1] // 2 + _SKIP_PX + _LEVEL_PX)
        steps = _steps(profiles[:, :reach], _STEP_PX)
        for part, profile, step in zip(parts, profiles, steps, strict=True):
            self._votes.append(_outermost(profile, step, grey.shape[1] // 2))
            column = int(median(self._votes))
            if column == 0:
                continue
            first = max(0, column - _WANDER_PX)
            near = step[first : column + _WANDER_PX]
            strongest = int(np.abs(near).argmax())
            if abs(near[strongest]) >= CONTRAST:
                edges[part] = _on_lines(grey[part], first + strongest, rises=bool(near[strongest] > 0))
            else:
                edges[part] = column
        return edges


def _outermost(profile: Floats, steps: Floats, furthest: int) -> int:
    """Column of the outermost step between table and web; 0 without one."""
    noise = 1.4826 * _median(np.abs(steps[furthest // 2 : furthest]))
    candidates = np.flatnonzero(np.abs(steps[:furthest]) >= max(CONTRAST, _NOISE * noise))
    while candidates.size:
        column = int(candidates[0] + np.abs(steps[candidates[0] : candidates[0] + _STEP_PX]).argmax())
        outside = _median(profile[max(0, column - _LEVEL_PX) : max(1, column - _STEP_PX // 4)])
        inside = _median(profile[column + _SKIP_PX : column + _SKIP_PX + _LEVEL_PX])
        if abs(inside - outside) >= CONTRAST and _lasts(profile, column):
            return column
        candidates = candidates[candidates >= column + _STEP_PX]
    return 0


def _lasts(profile: Floats, column: int) -> bool:
    """Whether the sides of a step differ without the pixels next to it, as those of a thread do not."""
    near = slice(max(0, column - _SIDE_PX - _THREAD_PX), max(1, column - _THREAD_PX))
    behind = slice(column + _THREAD_PX, column + _THREAD_PX + _SIDE_PX)
    return abs(float(profile[behind].mean()) - float(profile[near].mean())) >= CONTRAST


def _on_lines(lines: Lines, column: int, *, rises: bool) -> Floats:
    """The edge on each line of a group near that of the group."""
    first = max(0, column - _LINE_REACH_PX - _LINE_STEP_PX)
    near = lines[:, first : column + _LINE_REACH_PX + _LINE_STEP_PX].astype(np.float32)
    steps = _steps(near, _LINE_STEP_PX)
    edges = first + (steps if rises else -steps).argmax(axis=1).astype(np.float32)
    middle = _median(edges)
    edges[np.abs(edges - middle) > _LINE_WANDER_PX] = middle
    return np.asarray(edges, np.float32)


def _median(values: Floats) -> float:
    """As `np.median` of finite values, whose check for NaN takes ten times as long as they do."""
    above = len(values) // 2
    below = above - 1 + len(values) % 2
    middle = np.partition(values, (below, above))
    return float((middle[below] + middle[above]) / 2)


def _steps(values: Floats, reach: int) -> Floats:
    """At each pixel of rows, the mean of `reach` pixels from it on less that of the `reach` before it; 0 near the ends."""
    steps = np.zeros_like(values)
    inner = values.shape[1] - 2 * reach + 1
    if inner > 0:
        sums = np.zeros((len(values), values.shape[1] + 1))
        np.cumsum(values, axis=1, out=sums[:, 1:])
        steps[:, reach : reach + inner] = (
            sums[:, 2 * reach :] - 2 * sums[:, reach:-reach] + sums[:, : -2 * reach]
        ) / reach
    return steps
