"""Strips of the web's map in, defects out: labelled across strips, with pictures of them."""

import heapq
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.events import Defect
from flawline.runtime.web.components import Component
from flawline.runtime.web.defects import DefectMaker, Measures
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.history import LineHistory
from flawline.runtime.web.inspector import InspectedStrip
from flawline.runtime.web.labelling import StripLabeller
from flawline.runtime.web.snapshots import Snapshots, View


class Thumbnails(Protocol):
    """Where pictures of defects go."""

    def crop(self, pixels: npt.NDArray[np.uint8], line: int, number: int) -> str | None:
        """Takes a picture; the path that it will have, or None if there is no room for it.

        Args:
            pixels: uint8 (height, width[, channels]), copied.
            line: Number of a line, for its name.
            number: Tells pictures of that line apart.
        """


class DefectFinder:
    """Finds the defects of a web, strip by strip.

    Args:
        geometry: Of strips and tiles.
        width: Pixels of a line.
        threshold: Values above it belong to a defect.
        p_value: Share of good strips whose maximum is at least a score; see `DefectMaker`.
        max_lines: Length after which a defect that goes on is reported as it is; rounded up to rows of the map.
        merge_distance_px: Pixels along and across the web that may lie between parts of one defect; rounded down.
        min_area_px: Smallest defect, pixels of the web; rounded up to positions of the map.
        most: Defects that are given per strip, and where a stretch ends: those with the highest peaks. None for no limit.
        measures: Millimetres.
        thumbnails: Takes a picture of each defect, if wanted.

    Attributes:
        suppressed: Defects beyond `most`.
        history: When lines came: whoever takes them from the source tells it.
        label_ns: Nanoseconds that the labelling of the last strip took.
        rejected: Whether the rows of the last strip had a value above the threshold.
    """

    def __init__(
        self,
        geometry: Geometry,
        width: int,
        *,
        threshold: float,
        p_value: Callable[[float], float],
        max_lines: int,
        merge_distance_px: tuple[int, int] = (0, 0),
        min_area_px: int = 0,
        most: int | None = None,
        measures: Measures | None = None,
        thumbnails: Thumbnails | None = None,
    ) -> None:
        stride = geometry.map_stride
        self._geometry = geometry
        self._width = width
        # In float64, as verdicts compare: NumPy would otherwise round the threshold to the map's float32.
        self._threshold = np.float64(threshold)
        along, across = (distance // stride for distance in merge_distance_px)
        self._labeller = StripLabeller(
            geometry.map_width(width),
            max_rows=-(-max_lines // stride),
            merge_distance=(along, across),
            min_area=-(-min_area_px // stride**2),
        )
        # A region is reported some strips after its end: context, smoothing and merge distance are waited for.
        waiting = 4 * geometry.strip_lines + 4 * geometry.halo + merge_distance_px[0]
        self.history = LineHistory(max_lines + waiting)
        self._make = DefectMaker(
            map_stride=stride,
            width=width,
            threshold=threshold,
            p_value=p_value,
            history=self.history,
            measures=measures or Measures(),
        )
        self._most = most
        self._thumbnails = thumbnails
        self._snapshots = Snapshots(stride)
        self._next_line: int | None = None
        self.suppressed = 0
        self.label_ns = 0
        self.rejected = False

    def add(self, strip: InspectedStrip) -> Iterator[Defect]:
        """Takes a strip.

        Args:
            strip: Its pixels are valid while the defects are taken.

        Yields:
            The defects that end with its rows, or are too long. If lines are missing before it, those that end there.
        """
        rows, geometry = strip.rows, self._geometry
        first_line = strip.end - len(strip.left)
        if self._next_line not in (None, first_line) or self._labeller.next_row not in (None, rows.first_row):
            yield from self.cut()
        self._next_line = strip.end
        self.history.edges(first_line, strip.left)
        start = time.perf_counter_ns()
        mask = (rows.values > self._threshold) & rows.mask
        self.rejected = bool(mask.any())
        components = self._labeller.add(rows.first_row, rows.values, mask, rows.flagged)
        self.label_ns = time.perf_counter_ns() - start
        body = strip.window[:, geometry.halo : geometry.halo + self._width]
        view = View(strip.first_line - geometry.halo, body)
        yield from self._defects(components, view)
        if self._thumbnails is not None:
            self._snapshots.keep(self._labeller.open_peaks, view)

    def cut(self) -> Iterator[Defect]:
        """Ends the stretch: a gap, or the end of the web. Yields the defects that were open."""
        yield from self._defects(self._labeller.cut(), None)
        self._snapshots.keep([], View(0, np.empty((0, 0), np.uint8)))

    def _defects(self, components: list[Component], view: View | None) -> Iterator[Defect]:
        if self._most is not None and len(components) > self._most:
            self.suppressed += len(components) - self._most
            strongest = heapq.nlargest(self._most, range(len(components)), lambda index: components[index].peak)
            components = [components[index] for index in sorted(strongest)]
        for component in components:
            yield self._make(component, self._thumbnail(component, view))

    def _thumbnail(self, component: Component, view: View | None) -> str | None:
        if self._thumbnails is None:
            return None
        picture = self._snapshots.of((component.peak_y, component.peak_x), view)
        if picture is None or not picture.size:
            return None
        stride = self._geometry.map_stride
        return self._thumbnails.crop(picture, component.peak_y * stride, component.peak_x * stride)
