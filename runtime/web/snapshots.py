"""Pictures around the peaks of regions that are still open, kept until the regions are reported."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

SIZE_PX = 256
MOST = 32


class View(NamedTuple):
    """Lines that can be seen at present.

    Attributes:
        first_line: Number of the first.
        pixels: uint8 (n, width[, channels]).
    """

    first_line: int
    pixels: Pixels


class Snapshots:
    """Keeps a picture of each open region's peak, since its pixels are overwritten before the region ends.

    Pictures are found by the place of the peak: that of a region whose peak moves is replaced, that of one which is joined
    with a higher one is dropped.

    Args:
        map_stride: Pixels per position of the map.
        size_px: Height and width of a picture; it is cut off where the view ends.
        most: Pictures that are kept at once; there are none of further regions.
    """

    def __init__(self, map_stride: int, *, size_px: int = SIZE_PX, most: int = MOST) -> None:
        self._map_stride = map_stride
        self._size = size_px
        self._most = most
        self._kept: dict[tuple[int, int], Pixels] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, peaks: Iterable[tuple[int, int]], view: View) -> None:
        """Forgets all pictures but those of open regions, and takes those that are new.

        Args:
            peaks: Row and column of the peak of each open region.
            view: What can be seen.
        """
        peaks = list(peaks)
        self._kept = {peak: self._kept[peak] for peak in peaks if peak in self._kept}
        for peak in peaks:
            if len(self._kept) >= self._most:
                return
            if peak not in self._kept and (crop := self._crop(peak, view)) is not None:
                self._kept[peak] = crop.copy()

    def of(self, peak: tuple[int, int], view: View | None = None) -> Pixels | None:
        """The picture of a region that is reported: the one that was kept, or a part of the view, or None.

        Args:
            peak: Row and column of its peak.
            view: What can be seen; None for nothing.
        """
        picture = self._kept.get(peak)
        return self._crop(peak, view) if picture is None and view is not None else picture

    def _crop(self, peak: tuple[int, int], view: View) -> Pixels | None:
        row, column = (position * self._map_stride + self._map_stride // 2 for position in peak)
        row -= view.first_line
        if not 0 <= row < len(view.pixels):
            return None
        top, left = row - self._size // 2, column - self._size // 2
        return view.pixels[max(0, top) : top + self._size, max(0, left) : left + self._size]
