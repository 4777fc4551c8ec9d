"""Pictures for people: the anomaly map over the frame, with boxes around what is above the threshold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule
from flawline.runtime.regions import Region

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

MAX_OPACITY = 0.6
BOX_COLOUR = (255, 255, 255)
OUTLINE_COLOUR = (0, 0, 0)


def overlay(
    frame: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32], regions: Sequence[Region], threshold: float
) -> npt.NDArray[np.uint8]:
    """Lays an anomaly map over its frame.

    Colours are absolute, so that pictures compare: the middle of the colour scale is the threshold and its end is twice
    that. Opacity rises from none at half the threshold to its maximum at the threshold: good material stays visible. A map
    of one position, which says nothing of where, leaves the frame as it is but for its boxes.

    Args:
        frame: uint8 (height, width) or (height, width, channels), 1 channel or RGB.
        anomaly_map: float32 (h, w), of any size; it covers the whole frame.
        regions: Boxes to draw, in pixels of the frame.
        threshold: Score above which a frame is rejected.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    height, width = frame.shape[:2]
    picture = np.broadcast_to(frame if frame.ndim == 3 else frame[..., None], (height, width, 3))
    blended = picture.copy() if anomaly_map.size == 1 else _blend(picture, anomaly_map, threshold)
    line_px = max(1, round(min(height, width) / 250))
    for region in regions:
        corner = (region.x + region.width - 1, region.y + region.height - 1)
        # Light on dark, so that a box is seen on any picture and any heat.
        cv2.rectangle(blended, (region.x, region.y), corner, OUTLINE_COLOUR, 3 * line_px)
        cv2.rectangle(blended, (region.x, region.y), corner, BOX_COLOUR, line_px)
    return blended


def _blend(
    picture: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32], threshold: float
) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    relative = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR) / max(threshold, 1e-30)
    levels = np.clip(relative * 127.5, 0, 255).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    opacity = (MAX_OPACITY * np.clip(2 * relative - 1, 0, 1)).astype(np.float32)[..., None]
    blended: npt.NDArray[np.uint8] = (picture + opacity * (heat.astype(np.float32) - picture)).astype(np.uint8)
    return blended
