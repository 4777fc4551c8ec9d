"""Where the web begins and ends on each line, beside a table that may be brighter or darker."""

from collections import deque
from statistics import median_high
from typing import TYPE_CHECKING, NamedTuple

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

SMALLEST_WIDTH_PX = 160
"""On narrower lines no edge is told from the texture."""

_FULL_WIDTH_PX = 768
"""On narrower lines lengths across the web shrink in proportion, so that what an edge is told by lies on the line."""

_NOISE = 6.0
"""Steps must exceed those of the web itself by this factor, as a robust standard deviation of theirs."""

_VOTES = 16
"""Groups of lines that say by majority where the edge is; a web that wanders further in that time is followed with a lag."""

_FIRST_LINES = 4
"""In the first group of a stretch, which nobody can outvote yet, so many lines have a vote."""

_LINE_STEP_PX, _LINE_REACH_PX, _LINE_WANDER_PX = 6, 16, 6
"""On a single line: pixels on either side of the step, reach of the search, and how far it may be from its neighbours."""


class _Lengths(NamedTuple):
    """Lengths across the web, pixels.

    Attributes:
        step: An edge is a step between the means of so many on either side of it: shading is slower, threads are thinner.
        skip: Behind an edge there may be a selvedge.
        level: The web's own brightness is taken of so many behind that.
        thread: Within so many of a step there may be a thread.
        side: So many on either side of a thread look alike.
        wander: How far a group may be from the majority.
    """

    step: int
    skip: int
    level: int
    thread: int
    side: int
    wander: int

    @classmethod
    def of(cls, width: int) -> "_Lengths":
        scale = min(1.0, width / _FULL_WIDTH_PX)
        return cls(*(round(length * scale) for length in (24, 128, 256, 32, 64, 48)))


class EdgeFinder:
    """Finds both edges of the web on each line.

    The left edge lies in the left half of the line, the right one in the right half, and at least 256 pixels of web, or on
    lines of less than 768 a third of them, between edges or borders. On lines of less than `SMALLEST_WIDTH_PX` no edge is
    looked for.

    The average of `GROUP_LINES` lines is searched from the outside for a step that has another brightness outside than
    inside; the last groups vote on where it is, near there the group has a step of its own, and near that each line.
    Without a step the web reaches to the border of the image. What is found on a line depends on that line's group and on
    the ones before it in the same stretch, not on how lines were cut into calls.

    Attributes:
        crossed_lines: Lines on which the edges crossed each other, so that the web is taken to reach from border to border.
    """

    def __init__(self) -> None:
        self._sides = (_Side(), _Side())
        self._next_line: int | None = None
        self.crossed_lines = 0

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
        width = lines.shape[1]
        if width < SMALLEST_WIDTH_PX:
            return np.zeros(len(lines), np.float32), np.full(len(lines), width, np.float32)
        grey = lines if lines.ndim == 2 else np.asarray(cv2.cvtColor(lines, cv2.COLOR_RGB2GRAY), np.uint8)
        parts = groups(len(lines), first_line)
        profiles = _profiles(grey, parts)
        alone = parts[0].stop if self._sides[0].is_new else 0
        first = _profiles(grey, [slice(n, min(n + _FIRST_LINES, alone)) for n in range(0, alone, _FIRST_LINES)])
        left = self._sides[0].find(grey, parts, profiles, first)
        right = width - self._sides[1].find(grey[:, ::-1], parts, profiles[:, ::-1], first[:, ::-1])
        crossed = left >= right
        left[crossed], right[crossed] = 0, width
        self.crossed_lines += int(np.count_nonzero(crossed))
        return left, right


def groups(count: int, first_line: int) -> list[slice]:
    """The groups that consecutive lines belong to; the first and the last may be cut short."""
    starts = [0, *range(GROUP_LINES - first_line % GROUP_LINES, count, GROUP_LINES)]
    return [slice(start, stop) for start, stop in zip(starts, (*starts[1:], count), strict=True)]


def _profiles(grey: Lines, parts: list[slice]) -> Floats:
    """The average of each part of the lines: float32 (n, width)."""
    profiles = np.empty((len(parts), grey.shape[1]), np.float32)
    for profile, part in zip(profiles, parts, strict=True):
        cv2.reduce(grey[part], 0, cv2.REDUCE_AVG, profile[None], cv2.CV_32F)
    return profiles


class _Side:
    """The left edge of lines; the right one is that of the lines mirrored."""

    def __init__(self) -> None:
        self._votes: deque[int] = deque(maxlen=_VOTES)

    @property
    def is_new(self) -> bool:
        """Whether nobody has voted yet."""
        return not self._votes

    def forget(self) -> None:
        """A new stretch begins."""
        self._votes.clear()

    def find(self, grey: Lines, parts: list[slice], profiles: Floats, first: Floats) -> Floats:
        """The edge on each line: float32 (n,); 0 where the web reaches the border.

        Args:
            grey: uint8 (n, width).
            parts: Its groups.
            profiles: The average of each, float32 (groups, width).
            first: Averages that vote for the first group, if it has none of its own: float32 (m, width).
        """
        edges = np.zeros(len(grey), np.float32)
        lengths = _Lengths.of(grey.shape[1])
        steps, votes = _poll(profiles, lengths)
        ballots = [[vote] for vote in votes]
        if len(first):
            ballots[0] = _poll(first, lengths)[1]
        for part, step, ballot in zip(parts, steps, ballots, strict=True):
            self._votes.extend(ballot)
            column = median_high(self._votes)  # never between two edges
            if column == 0:
                continue
            begin = max(0, column - lengths.wander)
            near = step[begin : column + lengths.wander]
            strongest = int(np.abs(near).argmax())
            if abs(near[strongest]) >= CONTRAST:
                edges[part] = _on_lines(grey[part], begin + strongest, rises=bool(near[strongest] > 0))
            else:
                edges[part] = column
        return edges


def _poll(profiles: Floats, lengths: _Lengths) -> tuple[Floats, list[int]]:
    """The steps of each profile, and where it has the outermost one between table and web; 0 without one."""
    half = profiles.shape[1] // 2
    # The web's other edge lies in the other half.
    steps = _steps(profiles[:, : half + lengths.skip + lengths.level], lengths.step)
    return steps, [_outermost(profile, step, half, lengths) for profile, step in zip(profiles, steps, strict=True)]


def _outermost(profile: Floats, steps: Floats, half: int, lengths: _Lengths) -> int:
    noise = 1.4826 * _median(np.abs(steps[half // 2 : half]))
    candidates = np.flatnonzero(np.abs(steps[:half]) >= max(CONTRAST, _NOISE * noise))
    while candidates.size:
        column = int(candidates[0] + np.abs(steps[candidates[0] : candidates[0] + lengths.step]).argmax())
        if column >= half:
            break  # the foot of a step in the other half
        outside = _median(profile[max(0, column - lengths.level) : max(1, column - lengths.step // 4)])
        inside = _median(profile[column + lengths.skip : column + lengths.skip + lengths.level])
        if abs(inside - outside) >= CONTRAST and _lasts(profile, column, lengths):
            return column
        candidates = candidates[candidates >= column + lengths.step]
    return 0


def _lasts(profile: Floats, column: int, lengths: _Lengths) -> bool:
    """Whether the sides of a step differ without the pixels next to it, as those of a thread do not."""
    thread, side = lengths.thread, lengths.side
    near = slice(max(0, column - side - thread), max(1, column - thread))
    behind = slice(column + thread, column + thread + side)
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
