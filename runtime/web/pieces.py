"""Pictures of a web, each a piece with a beginning and an end of its own, scored as the stream scores."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle import Bundle
from flawline.runtime.extractor import require_frame
from flawline.runtime.frame_scorer import require_finite, require_frames
from flawline.runtime.web.inspector import WebInspector


class PieceScorer:
    """Scores pieces of web of any size at their own resolution: the part of a detector that needs no threshold.

    Args:
        bundle: One for a web, in the precision that is wanted.
        backend: Name of the engine, or `auto`.
        threads: Threads of engine and kernel.
        batch: Most pieces that are taken at once; they are scored one after the other.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last call took.
    """

    def __init__(self, bundle: Bundle, backend: str, *, threads: int = 1, batch: int = 1) -> None:
        self._bundle = bundle
        self._threads = threads
        self._batch = batch
        self._inspector = WebInspector(bundle, _fitted_width(bundle), backend=backend, threads=threads)
        self.backend = self._inspector.backend
        self.timings_ns = {"network": 0}

    def batch(self, frames: Sequence[npt.NDArray[np.uint8]]) -> tuple[list[float], list[npt.NDArray[np.float32]]]:
        """Scores pieces.

        Args:
            frames: uint8 (height, width) or (height, width, 3) each, sides from 16 px.

        Returns:
            The largest value of each map, and the anomaly maps, float32 (rows, w) each, 0 where there is no web.

        Raises:
            InputError: A piece is not of that form, or there are too many or none.
            FlawlineError: The engine failed, or a score is not finite.
        """
        require_frames(frames, self._batch)
        start = time.perf_counter_ns()
        maps = []
        for frame in frames:
            piece = require_frame(frame, self._bundle.manifest.input.channels)
            maps.append(self._inspector_for(piece.shape[1]).inspect_piece(piece)[0])
        scores = np.array([anomaly_map.max() for anomaly_map in maps], np.float32)
        self.timings_ns["network"] = time.perf_counter_ns() - start
        require_finite(scores)
        return scores.tolist(), maps

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._inspector.close()

    def _inspector_for(self, width: int) -> WebInspector:
        """Opened anew for pieces of another width: they come in order, and are seldom of many."""
        if self._inspector.width != width:
            self._inspector.close()
            self._inspector = WebInspector(self._bundle, width, backend=self.backend, threads=self._threads)
        return self._inspector


def _fitted_width(bundle: Bundle) -> int:
    web_input = bundle.manifest.input
    halo = 0 if bundle.manifest.web is None else bundle.manifest.web.halo
    return web_input.source_width or web_input.width - 2 * halo
