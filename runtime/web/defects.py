"""Regions of the web's map to defects with positions, times and chances."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from flawline.runtime.events import Box, BoxMm, Defect, Point
from flawline.runtime.web.components import Component
from flawline.runtime.web.history import LineHistory


@dataclass(frozen=True)
class Measures:
    """How places on the web become millimetres; what is not known is None.

    Attributes:
        millimetres: Position of the beginning of a web line along the web.
        pixel_mm: Distance of neighbouring pixels across the web.
        strip_mm: Length of the good strips whose maxima the p-value is of.
        gate_mm: From the camera's line to the reject gate.
    """

    millimetres: Callable[[float], float] | None = None
    pixel_mm: float | None = None
    strip_mm: float | None = None
    gate_mm: float | None = None


class DefectMaker:
    """Makes events of regions.

    Args:
        map_stride: Pixels per position of the map.
        width: Pixels of a line.
        threshold: What the values of regions exceed.
        p_value: Share of the held-out good strips, counting this one, whose maximum is at least a score:
            `Detector.p_value`.
        history: When lines came and where the web's edge was.
        measures: Millimetres.
    """

    def __init__(
        self,
        *,
        map_stride: int,
        width: int,
        threshold: float,
        p_value: Callable[[float], float],
        history: LineHistory,
        measures: Measures,
    ) -> None:
        self._map_stride = map_stride
        self._width = width
        self._threshold = threshold
        self._p_value = p_value
        self._history = history
        self._measures = measures

    def __call__(self, component: Component, thumbnail: str | None = None, now_ns: int | None = None) -> Defect:
        """Makes the event of a region.

        Args:
            component: The region.
            thumbnail: Path of its picture, if there is one.
            now_ns: `time.monotonic_ns()` at which it is told; that of the call if None.

        Returns:
            The event. `late` compares the reject gate with the first line of the defect, which comes there first.
        """
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        box = self._box(component)
        last_line = box.y + box.height - 1
        arrival = self._history.arrival(last_line)
        latency_ns = 0 if arrival is None else now_ns - arrival.arrival_time_ns
        peak_at = Point(min(self._centre(component.peak_x), self._width - 1), self._centre(component.peak_y))
        area_px = component.area * self._map_stride**2
        box_mm = self._box_mm(box)
        p_value = self._p_value(component.peak)
        strip_mm = self._measures.strip_mm
        return Defect(
            first_line=box.y,
            last_line=last_line,
            box=box,
            box_mm=box_mm,
            peak_at=peak_at,
            edge_mm=self._edge_mm(peak_at),
            area_px=area_px,
            area_mm2=None if box_mm is None else area_px * box_mm.width * box_mm.height / (box.width * box.height),
            peak=component.peak,
            mean=component.mean,
            p_value=p_value,
            false_rejects_per_m=None if strip_mm is None else p_value * 1000 / strip_mm,
            threshold=self._threshold,
            flagged=component.flagged,
            open=component.open,
            continued=component.continued,
            camera_time_ns=0 if arrival is None else arrival.camera_time_ns,
            arrived=datetime.now(timezone.utc) - timedelta(microseconds=latency_ns / 1000),
            latency_ms=latency_ns / 1e6,
            late=self._is_late(box.y, now_ns),
            thumbnail=thumbnail,
        )

    def _box(self, component: Component) -> Box:
        stride = self._map_stride
        x, y = component.x * stride, component.y * stride
        # The last cell may reach beyond the camera's image.
        return Box(x, y, min(component.width * stride, self._width - x), component.height * stride)

    def _box_mm(self, box: Box) -> BoxMm | None:
        millimetres, pixel_mm = self._measures.millimetres, self._measures.pixel_mm
        if millimetres is None or pixel_mm is None:
            return None
        start = millimetres(box.y)
        return BoxMm(box.x * pixel_mm, start, box.width * pixel_mm, millimetres(box.y + box.height) - start)

    def _edge_mm(self, peak_at: Point) -> float | None:
        edge_px, pixel_mm = self._history.left_edge(peak_at.y), self._measures.pixel_mm
        return None if edge_px is None or pixel_mm is None else (peak_at.x - edge_px) * pixel_mm

    def _is_late(self, first_line: int, now_ns: int) -> bool | None:
        millimetres, gate_mm = self._measures.millimetres, self._measures.gate_mm
        if millimetres is None or gate_mm is None:
            return None
        travelled_mm = self._history.travelled_mm(now_ns, millimetres)
        return None if travelled_mm is None else travelled_mm - millimetres(first_line) > gate_mm

    def _centre(self, position: int) -> int:
        return position * self._map_stride + self._map_stride // 2
