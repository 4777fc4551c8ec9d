"""Thumbnails and overlays of defects, written by a thread of their own so that a slow disk never holds up the line."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flawline.runtime.detector import Result
from flawline.runtime.errors import FlawlineError
from flawline.runtime.events import Pictures
from flawline.runtime.files import make_folder
from flawline.runtime.images import write_image
from flawline.runtime.overlay import overlay
from flawline.runtime.regions import Region
from flawline.runtime.stream.assembler import Frame

MAX_WAITING = 32
MARGIN = 0.5  # surroundings on each side of a defect in its thumbnail, relative to its size
MIN_MARGIN_PX = 16


class PictureWriter:
    """Writes PNG files of defects, each whole or not at all.

    Names begin with the time at which the writer was made: a stream that is started again overwrites nothing.

    Args:
        thumbnails: Folder for pictures of defects and their surroundings; None for no such pictures.
        overlays: Folder for pictures of rejected frames with their anomaly map; None for no such pictures.
        max_waiting: Pictures that may wait for the disk; those beyond it are dropped and counted.

    Attributes:
        error: Why the last picture that failed could not be written; empty if none failed.

    Raises:
        InputError: A folder cannot be made.
        ResourceError: The disk is full.
    """

    def __init__(
        self, thumbnails: Path | None = None, overlays: Path | None = None, max_waiting: int = MAX_WAITING
    ) -> None:
        for folder in filter(None, (thumbnails, overlays)):
            make_folder(folder)
        self._thumbnails = thumbnails
        self._overlays = overlays
        self._run = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        self._max_waiting = max_waiting
        self._waiting: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._written = self._dropped = self._failed = 0
        self.error = ""

    def thumbnail(self, frame: Frame, region: Region, number: int) -> str | None:
        """Queues a picture of a defect.

        Args:
            frame: The frame it is in; what is needed of its pixels is copied.
            region: The defect.
            number: Which defect of the frame, from 0.

        Returns:
            The path that the picture will have, or None if there will be none.
        """
        return self.crop(surroundings(frame.pixels, region), frame.first_line, number)

    def crop(self, pixels: npt.NDArray[np.uint8], line: int, number: int) -> str | None:
        """Queues a picture that is cut out already.

        Args:
            pixels: uint8 (height, width[, channels]), copied.
            line: Number of a line, for its name.
            number: Tells pictures of that line apart.

        Returns:
            The path that the picture will have, or None if there will be none.
        """
        if self._thumbnails is None or not self._has_room():
            return None
        pixels = pixels.copy()
        return self._submit(self._thumbnails / f"{self._run}-line{line:09d}-{number:02d}.png", lambda: pixels)

    def overlay(self, frame: Frame, result: Result) -> str | None:
        """Queues a picture of a rejected frame with its anomaly map.

        Args:
            frame: Its pixels are copied.
            result: What the detector said of it.

        Returns:
            The path that the picture will have, or None if there will be none.
        """
        if self._overlays is None or not self._has_room():
            return None
        pixels = frame.pixels.copy()
        path = self._overlays / f"{self._run}-line{frame.first_line:09d}.png"
        return self._submit(path, lambda: overlay(pixels, result.map, result.regions, result.threshold))

    def close(self) -> Pictures:
        """Waits until what was queued is written and says what became of all pictures."""
        self._thread.shutdown()
        self._collect()
        return Pictures(self._written, self._dropped, self._failed)

    def _submit(self, path: Path, render: Callable[[], npt.NDArray[np.uint8]]) -> str:
        self._waiting.append(self._thread.submit(_write, path, render))
        return str(path)

    def _has_room(self) -> bool:
        self._collect()
        if len(self._waiting) < self._max_waiting:
            return True
        self._dropped += 1
        return False

    def _collect(self) -> None:
        """Counts what the thread has finished; an error that is no fault of the disk comes out here."""
        while self._waiting and self._waiting[0].done():
            try:
                self._waiting.popleft().result()
                self._written += 1
            except FlawlineError as error:
                self._failed += 1
                self.error = str(error)


def surroundings(pixels: npt.NDArray[np.uint8], region: Region) -> npt.NDArray[np.uint8]:
    """The part of a frame around a region: a view of (height, width[, channels]) pixels, cut off at the frame's borders."""
    across = max(MIN_MARGIN_PX, round(MARGIN * region.width))
    along = max(MIN_MARGIN_PX, round(MARGIN * region.height))
    rows = slice(max(0, region.y - along), region.y + region.height + along)
    columns = slice(max(0, region.x - across), region.x + region.width + across)
    return pixels[rows, columns]


def _write(path: Path, render: Callable[[], npt.NDArray[np.uint8]]) -> None:
    write_image(path, render())
