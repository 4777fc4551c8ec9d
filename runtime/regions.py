"""Regions of an anomaly map that lie above the threshold."""

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")


class Region(msgspec.Struct, frozen=True):
    """A connected part of the frame whose anomaly map is above the threshold.

    Attributes:
        x: Left edge, pixels of the frame.
        y: Upper edge, pixels of the frame.
        width: Pixels of the frame.
        height: Pixels of the frame.
        area_px: Pixels of the frame that belong to the region.
        peak: Largest value of the map inside.
        mean: Mean value of the map inside.
    """

    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float
    mean: float


def find_regions(anomaly_map: npt.NDArray[np.float32], threshold: float, frame_size: tuple[int, int]) -> list[Region]:
    """Finds the regions above a threshold, 8-connected, highest peak first.

    Args:
        anomaly_map: float32 (h, w).
        threshold: Values above it belong to a region.
        frame_size: Height and width of the frame, in pixels, that the map covers.

    Returns:
        One entry per region; boxes are in pixels of the frame.
    """
    # In float64, as the verdict compares: NumPy would otherwise round the threshold to the map's float32.
    mask = (anomaly_map > np.float64(threshold)).view(np.uint8)
    if not mask.any():
        return []
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    scale_y = frame_size[0] / anomaly_map.shape[0]
    scale_x = frame_size[1] / anomaly_map.shape[1]
    regions = []
    for label, (left, top, width, height, area) in enumerate(stats[1:].tolist(), start=1):
        inside = anomaly_map[top : top + height, left : left + width]
        values = inside[labels[top : top + height, left : left + width] == label]
        x, y = round(left * scale_x), round(top * scale_y)
        regions.append(
            Region(
                x=x,
                y=y,
                width=max(1, round((left + width) * scale_x) - x),
                height=max(1, round((top + height) * scale_y) - y),
                area_px=max(1, round(area * scale_x * scale_y)),
                peak=float(values.max()),
                mean=float(values.mean()),
            )
        )
    return sorted(regions, key=lambda region: -region.peak)
