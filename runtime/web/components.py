"""Regions of the anomaly map of a web: what is measured of them, and how parts of one become a whole."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NOWHERE = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Component:
    """A region of the map, or a piece of one that is too long. Lengths and places are in positions of the map.

    Attributes:
        x: First column.
        y: First row, counted along the whole web.
        width: Columns.
        height: Rows.
        area: Positions that belong to it.
        peak: Largest value.
        peak_x: Column of the peak, the first one of equals by row and column.
        peak_y: Row of the peak.
        mean: Mean value.
        flagged: Whether a row that it touches is flagged.
        open: Whether it was reported for its length: the region may go on.
        continued: Whether it is the rest of a region, of which a piece was reported before.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    peak_x: int
    peak_y: int
    mean: float
    flagged: bool
    open: bool
    continued: bool

    @property
    def last_row(self) -> int:
        """The last row that it touches."""
        return self.y + self.height - 1


@dataclass(slots=True)
class Parts:
    """Parts of regions, from a single position to a whole region: an array of each measure, with an entry per part."""

    area: Ints
    total: npt.NDArray[np.float64]
    peak: npt.NDArray[np.float32]
    place: Ints
    """Of the peak: row times columns of the map plus column."""
    left: Ints
    right: Ints
    first: Ints
    last: Ints
    flagged: Bools
    continued: Bools

    @classmethod
    def neutral(cls, count: int) -> "Parts":
        """Parts without a position."""
        return cls(
            area=np.zeros(count, np.int64),
            total=np.zeros(count),
            peak=np.full(count, -np.inf, np.float32),
            place=np.full(count, NOWHERE),
            left=np.full(count, NOWHERE),
            right=np.full(count, -1),
            first=np.full(count, NOWHERE),
            last=np.full(count, -1),
            flagged=np.zeros(count, np.bool_),
            continued=np.zeros(count, np.bool_),
        )

    @classmethod
    def positions(
        cls, values: npt.NDArray[np.float32], rows: Ints, columns: Ints, width: int, flagged: Bools
    ) -> "Parts":
        """Single positions, each a part."""
        return cls(
            area=np.ones(len(values), np.int64),
            total=values.astype(np.float64),
            peak=values,
            place=rows * width + columns,
            left=columns,
            right=columns,
            first=rows,
            last=rows,
            flagged=flagged,
            continued=np.zeros(len(values), np.bool_),
        )

    def at(self, which: Bools | npt.NDArray[np.intp]) -> "Parts":
        """Some of the parts, by a mask or their numbers, as a copy."""
        return Parts(**{name: getattr(self, name)[which] for name in _MEASURES})

    def joined(self, others: "Parts") -> "Parts":
        """These parts, then the others."""
        return Parts(**{name: np.concatenate((getattr(self, name), getattr(others, name))) for name in _MEASURES})

    def grouped(self, group: Ints, groups: int) -> "Parts":
        """One part for each group.

        Args:
            group: (n,), from 1 on, of each part; no group is empty.
            groups: How many there are.
        """
        if not groups:
            return Parts.neutral(0)
        # 16 bits are sorted by their digits, which is several times faster.
        order = np.argsort(group.astype(np.uint16) if groups < 1 << 16 else group, kind="stable")
        parts, group = self.at(order), group[order]
        starts = np.searchsorted(group, np.arange(1, groups + 1))
        peak = np.maximum.reduceat(parts.peak, starts)
        return Parts(
            area=np.add.reduceat(parts.area, starts),
            total=np.add.reduceat(parts.total, starts),
            peak=peak,
            place=np.minimum.reduceat(np.where(parts.peak == peak[group - 1], parts.place, NOWHERE), starts),
            left=np.minimum.reduceat(parts.left, starts),
            right=np.maximum.reduceat(parts.right, starts),
            first=np.minimum.reduceat(parts.first, starts),
            last=np.maximum.reduceat(parts.last, starts),
            flagged=np.logical_or.reduceat(parts.flagged, starts),
            continued=np.logical_or.reduceat(parts.continued, starts),
        )

    def begin_again(self, which: Bools) -> None:
        """Empties some of the parts, which are continued from then on."""
        empty = Parts.neutral(1)
        for name in _MEASURES:
            getattr(self, name)[which] = getattr(empty, name)
        self.continued[which] = True

    def components(self, width: int, *, is_open: bool) -> list[Component]:
        """The parts as components, by last row and place of the peak; none is empty.

        Args:
            width: Columns of the map.
            is_open: Whether they may go on.
        """
        peak_y, peak_x = np.divmod(self.place, width)
        mean = self.total / self.area
        return [
            Component(
                x=int(self.left[index]),
                y=int(self.first[index]),
                width=int(self.right[index] - self.left[index]) + 1,
                height=int(self.last[index] - self.first[index]) + 1,
                area=int(self.area[index]),
                peak=float(self.peak[index]),
                peak_x=int(peak_x[index]),
                peak_y=int(peak_y[index]),
                mean=float(mean[index]),
                flagged=bool(self.flagged[index]),
                open=is_open,
                continued=bool(self.continued[index]),
            )
            for index in np.lexsort((self.place, self.last)).tolist()
        ]


_MEASURES = tuple(field.name for field in fields(Parts))
