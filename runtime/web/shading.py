"""Slow changes of brightness, across the web and along it, taken out of its lines."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle.manifest import Shading
from flawline.runtime.extras import LazyModule
from flawline.runtime.web.edges import groups
from flawline.runtime.web.strips import Lines

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

_LARGEST_GAIN = 8.0


def level(
    lines: Lines,
    first_line: int,
    edges: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    shading: Shading,
) -> None:
    """Brings the web to one brightness, in place.

    Each group of lines is averaged, the average smoothed along the line over `width_px` pixels of web, and each pixel
    multiplied by what brings that to the target. What lies outside the web stays as it is.

    Args:
        lines: uint8 (n, width[, 3]).
        first_line: Number of the first.
        edges: Left and right edge on each line.
        shading: Target and width.
    """
    for group in groups(len(lines), first_line):
        left = round(float(np.median(edges[0][group])))
        right = round(float(np.median(edges[1][group])))
        if right <= left:
            continue
        part = lines[group, left:right]
        profile = np.asarray(cv2.reduce(part, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0], np.float32)
        grey = profile if profile.ndim == 1 else profile.mean(axis=1)
        width = min(shading.width_px | 1, 2 * (len(grey) // 2) + 1)
        slow = cv2.blur(grey[None], (width, 1), borderType=cv2.BORDER_REPLICATE)[0]
        gain = np.minimum(shading.target / np.maximum(slow, 1.0), _LARGEST_GAIN).astype(np.float32)
        gains = np.broadcast_to(gain[None, :] if part.ndim == 2 else gain[None, :, None], part.shape)
        lines[group, left:right] = cv2.multiply(part, np.ascontiguousarray(gains), dtype=cv2.CV_8U)
