"""Regions of an endless map above the threshold, the same however the map is cut into strips."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule
from flawline.runtime.web.components import Bools, Component, Ints, Parts

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

SEGMENT_ROWS = 128
"""Most rows that are labelled at once: longer strips take no more memory."""


class StripLabeller:
    """Labels a map that comes strip by strip.

    Two positions of the mask belong together if at most `merge_distance[0]` rows and `merge_distance[1]` columns lie
    between them; with (0, 0) these are the eight neighbours. Regions are what hangs together in that way. To find them
    each position is widened to a rectangle that reaches so many rows down and columns to the right: rectangles touch if,
    and only if, their positions belong together. The widened mask is labelled, and the true positions are counted.

    A region that spans `max_rows` rows and may go on is reported as it is, and what follows is a new component, though one
    with it where parts of it meet again. A component smaller than `min_area` is dropped, unless it is a piece of a region
    of which another piece is large enough or was reported for its length.

    What comes out, and in which order, does not depend on the strips. Means neither, as long as the largest value is less
    than 1000 times the smallest: float64 then adds up to 500,000 values without rounding.

    Args:
        width: Columns of the map.
        max_rows: Rows after which an open region is reported.
        merge_distance: Rows and columns that may lie between parts of one region.
        min_area: Positions of the smallest region that is reported.

    Raises:
        ValueError: A number is too small.
    """

    def __init__(
        self, width: int, *, max_rows: int, merge_distance: tuple[int, int] = (0, 0), min_area: int = 1
    ) -> None:
        rows, columns = merge_distance
        if min(width, max_rows) < 1 or min(rows, columns, min_area) < 0:
            raise ValueError(
                f"width {width}, max_rows {max_rows}, merge_distance {merge_distance}, min_area {min_area}; expected "
                "positive numbers, and at least 0 for distance and area"
            )
        self._width = width
        self._max_rows = max_rows
        self._min_area = min_area
        self._segment_rows = min(max_rows, SEGMENT_ROWS)
        self._kernel = np.ones((rows + 1, columns + 1), np.uint8)
        self._down = rows
        # The mask with the last rows of the segment before above it.
        self._mask = np.zeros((rows + self._segment_rows, width), np.uint8)
        self._wide = np.zeros_like(self._mask)
        # The last widened row of the segment before comes first: so its regions go on into this one's labels.
        self._alive = np.zeros((1 + self._segment_rows, width), np.uint8)
        self._labels = np.zeros(self._alive.shape, np.int32)
        self._above = np.zeros(width, np.int64)
        self._open = Parts.neutral(0)
        self._next_row: int | None = None

    @property
    def next_row(self) -> int | None:
        """Number of the row that would go on; None where any row may begin."""
        return self._next_row

    @property
    def open_peaks(self) -> list[tuple[int, int]]:
        """Row and column of the peak of each region that is still open."""
        rows, columns = np.divmod(self._open.place[self._open.area > 0], self._width)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))

    def add(
        self, first_row: int, values: npt.NDArray[np.float32], mask: Bools, flagged: Bools | None = None
    ) -> list[Component]:
        """Takes the next rows.

        Args:
            first_row: Number of the first; the rows follow those before, unless `cut` came between.
            values: float32 (n, width), the map.
            mask: bool (n, width), positions above the threshold; their values are finite.
            flagged: bool (n,), rows whose components are flagged; None for none.

        Returns:
            The components that are closed, by their last row, and those that are too long.

        Raises:
            ValueError: Rows are missing or come again, or the width is another.
        """
        if mask.shape != values.shape or mask.shape[1:] != (self._width,):
            raise ValueError(f"values are {values.shape}, mask {mask.shape}; expected {self._width} columns in both")
        if self._next_row not in (None, first_row):
            raise ValueError(f"rows begin at {first_row}; expected {self._next_row}, or a cut before")
        end, row = first_row + len(mask), first_row
        components: list[Component] = []
        while row < end:
            stop = self._segment_end(row, end)
            part = slice(row - first_row, stop - first_row)
            components += self._segment(row, values[part], mask[part], None if flagged is None else flagged[part])
            row = stop
        self._next_row = end
        return components

    def cut(self) -> list[Component]:
        """Closes what is open: the web ends here, or rows are missing.

        Returns:
            The components, by their last row.
        """
        components = self._closed(self._open)
        self._open = Parts.neutral(0)
        self._above[:] = 0
        self._mask[: self._down] = 0
        self._next_row = None
        return components

    def _segment_end(self, row: int, end: int) -> int:
        """The row up to which nothing can become too long."""
        first = self._open.first[self._open.area > 0]
        until = int(first.min()) + self._max_rows if first.size else end
        return min(end, row + self._segment_rows, until)

    def _segment(
        self, first_row: int, values: npt.NDArray[np.float32], mask: Bools, flagged: Bools | None
    ) -> list[Component]:
        places = np.flatnonzero(mask)
        if not places.size and not self._open.area.size:
            # What was widened is over as well: it is part of an open region as long as it reaches down.
            return []
        count, labels = self._label(mask)
        group_of, group_of_open = self._groups(labels[0], count)
        rows, columns = np.divmod(places, self._width)
        touched = np.zeros(len(rows), np.bool_) if flagged is None else flagged[rows]
        positions = Parts.positions(values.ravel()[places], rows + first_row, columns, self._width, touched)
        group_of_position = group_of[labels[1:].ravel()[places]]
        groups = int(group_of.max())
        merged = self._open.joined(positions).grouped(np.concatenate((group_of_open, group_of_position)), groups)
        last = group_of[labels[-1]]
        alive = np.zeros(groups + 1, np.bool_)
        alive[last] = True
        alive[0] = False
        components = self._closed(merged.at(~alive[1:]))
        self._open = merged.at(alive[1:])
        self._above[:] = np.where(alive, np.cumsum(alive), 0)[last]
        too_long = (self._open.area > 0) & (first_row + len(mask) - self._open.first >= self._max_rows)
        if too_long.any():
            components += self._open.at(too_long).components(self._width, is_open=True)
            self._open.begin_again(too_long)
        return components

    def _label(self, mask: Bools) -> tuple[int, npt.NDArray[np.int32]]:
        """How many labels, and those of the last row before and of the widened mask: int32 (1 + n, width)."""
        count, down = len(mask), self._down
        rows = self._mask[: down + count]
        rows[down:] = mask
        if self._kernel.size > 1:
            wide = self._wide[: down + count]
            anchor = (self._kernel.shape[1] - 1, down)
            cv2.dilate(rows, self._kernel, wide, anchor, borderType=cv2.BORDER_CONSTANT)
            self._alive[1 : 1 + count] = wide[down:]
            rows[:down] = rows[count:].copy()
        else:
            self._alive[1 : 1 + count] = rows
        self._alive[0] = self._above > 0
        labels = self._labels[: 1 + count]
        number, _ = cv2.connectedComponents(self._alive[: 1 + count], labels, connectivity=8, ltype=cv2.CV_32S)
        return number, labels

    def _groups(self, above: npt.NDArray[np.int32], count: int) -> tuple[Ints, Ints]:
        """Joins labels that are one by way of an open region.

        Args:
            above: int32 (width,), labels of the last row before.
            count: Labels in all, with that of the background.

        Returns:
            The group of each label, from 1, 0 for the background; and the group of each open region.
        """
        columns = np.flatnonzero(self._above)
        regions, members = np.divmod(np.unique(self._above[columns] * count + above[columns]), count)
        again = regions[1:] == regions[:-1]
        parents: dict[int, int] = {}
        for label, other in zip(members[:-1][again].tolist(), members[1:][again].tolist(), strict=True):
            parents[_root(parents, label)] = _root(parents, other)
        roots = np.arange(count)
        for label in list(parents):
            roots[label] = _root(parents, label)
        group_of = np.unique(roots, return_inverse=True)[1].reshape(-1)
        first = np.concatenate((members[:1], members[1:][~again]))
        return group_of, group_of[first]

    def _closed(self, parts: Parts) -> list[Component]:
        kept = (parts.area > 0) & ((parts.area >= self._min_area) | parts.continued)
        return parts.at(kept).components(self._width, is_open=False)


def _root(parents: dict[int, int], label: int) -> int:
    """The label that stands for all that are joined with this one."""
    while (parent := parents.setdefault(label, label)) != label:
        parents[label] = parents[parent]
        label = parent
    return label
