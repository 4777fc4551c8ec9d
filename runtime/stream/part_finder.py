"""Tells lines that show a part from those of the empty conveyor: by how many pixels differ from it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

GROUP_LINES = 32
"""Lines that are looked at together. Groups begin at multiples of it, so that nothing depends on the size of blocks."""

_SETTLE_LINES = 2048
"""Empty lines after which a lasting change of light is two thirds in the background."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PartOptions:
    """How parts are told from the conveyor, and cut out.

    Attributes:
        contrast: A pixel differs from the background if it is darker or brighter by more grey levels, 1 to 254; in colour,
            in one channel at least.
        share: A line shows a part if at least this share of its pixels differs, above 0 to 1.
        margin_lines: A frame begins so many lines before its part.
        background: uint8 (width,) or (width, 3), a line of the empty conveyor; None to learn it from the first lines.
    """

    contrast: int = 24
    share: float = 0.02
    margin_lines: int = 16
    background: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        """Refuses numbers by which no part could be told."""
        if not 1 <= self.contrast <= 254:
            raise InputError(f"a contrast of {self.contrast} grey levels; expected 1 to 254 (--part-contrast)")
        if not 0 < self.share <= 1:
            raise InputError(f"a share of {self.share:g} of a line; expected above 0, to 1 (--part-share)")
        if self.margin_lines < 0:
            raise InputError(f"a margin of {self.margin_lines} lines; expected 0 or more (--part-margin)")


class PartFinder:
    """Knows the background of every pixel across the conveyor, and follows it slowly.

    Args:
        line_shape: Shape of a line: (width,) or (width, 3).
        options: See there.

    Attributes:
        known: Whether the background is known.

    Raises:
        InputError: The given background is not of that shape.
    """

    def __init__(self, line_shape: tuple[int, ...], options: PartOptions) -> None:
        self._contrast = options.contrast
        self._fewest_px = math.ceil(options.share * line_shape[0])
        shape = (GROUP_LINES, *line_shape)
        self._tile = np.zeros(shape, np.uint8)
        self._difference = np.zeros(shape, np.uint8)
        self._largest, self._channel = (np.zeros(shape[:2], np.uint8) for _ in range(2))
        self._sums = np.zeros((GROUP_LINES, 1), np.int32)
        self._background = np.zeros(line_shape, np.float32)
        self.known = options.background is not None
        if options.background is not None:
            if options.background.shape != line_shape:
                raise InputError(
                    f"a background of {_shape(options.background.shape)} for lines of {_shape(line_shape)}; expected a picture of the "
                    "empty conveyor by the same camera"
                )
            self._set(options.background.astype(np.float32))

    def shows_part(self, lines: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Says which lines show a part.

        Args:
            lines: uint8 (n, width[, 3]), n up to `GROUP_LINES`.

        Returns:
            bool (n,).
        """
        n = len(lines)
        differs = self._difference[:n]
        cv2.absdiff(lines, self._tile[:n], differs)
        if differs.ndim == 3:
            largest, channel = self._largest[:n], self._channel[:n]
            cv2.extractChannel(differs, 0, largest)
            for number in range(1, differs.shape[2]):
                cv2.extractChannel(differs, number, channel)
                cv2.max(largest, channel, largest)
            differs = largest
        cv2.threshold(differs, self._contrast, 1, cv2.THRESH_BINARY, differs)
        cv2.reduce(differs, 1, cv2.REDUCE_SUM, self._sums[:n], cv2.CV_32S)
        return np.asarray(self._sums[:n, 0] >= self._fewest_px)

    def learn(self, lines: npt.NDArray[np.uint8]) -> bool:
        """Takes the median of some lines as the background, if all of them agree with it.

        Args:
            lines: uint8 (n, width[, 3]), n up to `GROUP_LINES`.

        Returns:
            Whether they do, and the background is known.
        """
        self._set(np.median(lines, axis=0).astype(np.float32))
        self.known = not self.shows_part(lines).any()
        return self.known

    def forget(self) -> None:
        """What was taken for the background is none."""
        self.known = False

    def follow(self, lines: npt.NDArray[np.uint8]) -> None:
        """Moves the background towards empty lines, uint8 (n, width[, 3]) with n of 1 to `GROUP_LINES`."""
        mean = cv2.reduce(lines.reshape(len(lines), -1), 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)
        change = mean.reshape(self._background.shape) - self._background
        self._set(self._background + change * np.float32(len(lines) / _SETTLE_LINES))

    def _set(self, background: npt.NDArray[np.float32]) -> None:
        self._background[...] = background
        self._tile[...] = np.rint(self._background).astype(np.uint8)


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} px in {'grey' if len(shape) == 1 else 'colour'}"
