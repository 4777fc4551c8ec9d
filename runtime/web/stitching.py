"""Maps of tiles to rows of the anomaly map of the whole web: stitched, masked, smoothed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule
from flawline.runtime.kernels.interpolation import gaussian_taps
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.strips import Strip

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class MapRows:
    """Rows of the web's anomaly map that will not change any more.

    Attributes:
        first_row: Number of the first: its first line divided by the map's stride.
        values: float32 (n, w), smoothed distances; 0 where masked. Overwritten with the next rows.
        mask: bool (n, w), what is web; likewise.
        flagged: bool (n,), rows whose context was made up in part, since the web begins or ends, or has a gap, nearby.
    """

    first_row: int
    values: Floats
    mask: npt.NDArray[np.bool_]
    flagged: npt.NDArray[np.bool_]


class Stitcher:
    """Puts the maps of strips together and smooths across their seams.

    The Gaussian is normalised by how much of it lies on the web: ``G(d m) / G(m)``, with distances d and the mask m, so
    that neither the table beside the web nor a gap leaks in. A row is given out when all rows under its Gaussian are there.

    Args:
        geometry: Of strips and tiles.
        width: Pixels of a line.
        sigma: Of the Gaussian, positions of the map; 0 for none.
        margin_px: Pixels inside each edge of the web that are masked.
    """

    def __init__(self, geometry: Geometry, width: int, sigma: float, margin_px: float = 0.0) -> None:
        self._geometry = geometry
        self._taps = gaussian_taps(sigma)
        self._radius = len(self._taps) // 2
        self._margin_px = margin_px
        self._width = width
        # Lines that a row rests on: the context of the network, and the rows under the Gaussian.
        self._reach = geometry.halo + self._radius * geometry.map_stride
        columns = geometry.map_width(width)
        # Kept from strip to strip: the rows not given out yet, as many as the Gaussian reaches, and as many above them.
        rows = 2 * self._radius + geometry.strip_rows
        self._mask, self._masked = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
        self._weight, self._smoothed = np.empty_like(self._mask), np.empty_like(self._mask)
        self._flagged = np.zeros(rows, np.bool_)
        self._first_row = self._filled = self._given = 0
        self._start = self._end = 0
        self._shares_row = False

    def add(self, strip: Strip, maps: Floats | None) -> MapRows:
        """Takes the maps of a strip.

        Args:
            strip: Follows the one before, unless it begins a stretch.
            maps: float32 (tiles, h, w), distances for each window, from left to right; None for a strip that could not be
                scored, which is masked.

        Returns:
            The rows that are complete with it, all of them if the stretch ends here; there may be none.
        """
        stride = self._geometry.map_stride
        if strip.begins:
            self._begin(strip)
        count = -(-(strip.end - strip.first_line) // stride)
        rows = slice(self._filled, self._filled + count)
        self._place(strip, maps, rows, count)
        self._filled += count
        self._end = strip.end
        end = self._filled if strip.ends else self._filled - self._radius
        given = self._smooth(self._given, max(self._given, end))
        self._discard()
        return given

    def _begin(self, strip: Strip) -> None:
        # As many empty rows above as the Gaussian reaches: they weigh nothing.
        self._mask[: self._radius] = self._masked[: self._radius] = 0
        self._flagged[: self._radius] = False
        self._first_row = strip.first_line // self._geometry.map_stride - self._radius
        self._filled = self._given = self._radius
        # Behind a gap within a row of the map: the row is that of the stretch before.
        is_same_row = strip.start // self._geometry.map_stride == (self._end - 1) // self._geometry.map_stride
        self._shares_row = strip.start >= self._end and is_same_row
        self._start = strip.start

    def _place(self, strip: Strip, maps: Floats | None, rows: slice, count: int) -> None:
        geometry, (core_rows, core_columns) = self._geometry, self._geometry.core
        columns = self._mask.shape[1]
        tile = geometry.tile_px // geometry.map_stride
        mask, masked = self._mask[rows], self._masked[rows]
        self._flag(strip, rows)
        if maps is None:
            mask[...] = masked[...] = 0
            self._flagged[rows] = True
            return
        for number, tile_map in enumerate(maps):
            place = slice(number * tile, min((number + 1) * tile, columns))
            masked[:, place] = tile_map[core_rows, core_columns][:count, : place.stop - place.start]
        mask[...] = cells_inside(strip.left, strip.right, self._width, geometry.map_stride, self._margin_px)[:count]
        masked *= mask
        # Rows of lines that never came: a strip begins at a multiple of the stride, the stretch may not.
        missing = max(0, strip.start - strip.first_line) // geometry.map_stride
        missing += strip.begins and self._shares_row
        mask[:missing] = masked[:missing] = 0

    def _flag(self, strip: Strip, rows: slice) -> None:
        self._flagged[rows] = self._lines(rows) < self._start + self._reach
        if strip.stretch_end is not None:
            # Rows of the strip before wait here too.
            waiting = slice(self._given, rows.stop)
            self._flagged[waiting] |= self._lines(waiting) + self._geometry.map_stride > strip.stretch_end - self._reach

    def _lines(self, rows: slice) -> npt.NDArray[np.int64]:
        """First line of each of the rows that are kept."""
        return (self._first_row + np.arange(rows.start, rows.stop, dtype=np.int64)) * self._geometry.map_stride

    def _smooth(self, start: int, end: int) -> MapRows:
        rows = slice(start, end)
        values, mask = self._masked[rows], self._mask[rows]
        if self._radius and end > start:
            near = slice(start - self._radius, min(end + self._radius, self._filled))
            for source, target in ((self._mask, self._weight), (self._masked, self._smoothed)):
                cv2.sepFilter2D(
                    source[near], -1, self._taps, self._taps, dst=target[near], borderType=cv2.BORDER_CONSTANT
                )
            values = self._smoothed[rows]
            np.divide(values, self._weight[rows], out=values, where=mask > 0)
            values *= mask
        self._given = end
        return MapRows(self._first_row + start, values, mask > 0, self._flagged[rows].copy())

    def _discard(self) -> None:
        """Moves the rows that later ones need to the top."""
        shift = self._given - self._radius
        kept = self._filled - shift
        for array in (self._mask, self._masked, self._flagged):
            # Where nothing is smoothed nothing is kept, and the rows just given out are views of these.
            array[:kept] = array[shift : self._filled].copy()
        self._first_row += shift
        self._filled, self._given = kept, self._radius


def cells_inside(
    left: npt.NDArray[np.float32], right: npt.NDArray[np.float32], width: int, stride: int, margin_px: float
) -> npt.NDArray[np.bool_]:
    """Which positions of the map lie wholly between the edges of the web.

    Args:
        left: float32 (n,), left edge on each line.
        right: float32 (n,), right edge.
        width: Pixels of a line.
        stride: Lines and pixels per position.
        margin_px: Pixels inside each edge that are left out.

    Returns:
        bool (ceil(n / stride), ceil(width / stride)); the last row may stand for fewer lines.
    """
    starts = np.arange(0, len(left), stride)
    lefts = np.maximum.reduceat(left, starts) + margin_px
    rights = np.minimum.reduceat(right, starts) - margin_px
    cells = np.arange(0, width, stride, dtype=np.float32)
    # The last cell may reach beyond the camera's image.
    return (lefts[:, None] <= cells) & (np.minimum(cells + stride, width) <= rights[:, None])
