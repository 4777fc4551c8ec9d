"""Frames to anomaly maps and scores: the feature graph and the kernels behind it."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle.manifest import Manifest
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.kernels import Gaussians, MahalanobisMap
from flawline.runtime.memory import require

_MOST_ROWS = 8
"""Rows of embeddings, of all frames, that a thread of the kernel holds at once where they share Gaussians."""

_BYTES_PER_POSITION = 32
"""Distances before and after smoothing and a result, float32; the order of the positions with what sorts them."""


class Scorer:
    """Frames to anomaly maps and scores: the part of a detector that needs no threshold.

    Everything is allocated here, before the first frame, but the one map per frame that is handed out.

    Args:
        features: Bytes of the ONNX file.
        manifest: Manifest of the bundle.
        gaussians: Statistics of the good images.
        backend: Name of the engine.
        threads: Threads of the engine and of the kernel.
        batch: Most frames that are scored at once.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last call took.
    """

    def __init__(
        self,
        features: bytes,
        manifest: Manifest,
        gaussians: Gaussians,
        *,
        backend: str,
        threads: int = 1,
        batch: int = 1,
    ) -> None:
        if batch < 1:
            raise InputError(f"batch is {batch}; expected 1 or more frames")
        require(
            _workspace_bytes(manifest, threads, batch),
            f"a map of {manifest.map.height} x {manifest.map.width} positions in {threads} threads",
            "fit with a coarser map, or use fewer threads or a smaller batch",
        )
        self._extractor = FeatureExtractor(
            features,
            manifest.input,
            manifest.network,
            manifest.projection.dimension,
            backend=backend,
            threads=threads,
            batch=batch,
            open_size=manifest.web is not None,
        )
        self.backend = self._extractor.backend_name
        self._mahalanobis = MahalanobisMap(
            gaussians,
            [(output.height, output.width) for output in manifest.network.outputs],
            (manifest.map.height, manifest.map.width),
            upsampling=manifest.map.upsampling,
            sigma=manifest.map.sigma,
            threads=threads,
            batch=batch,
        )
        self._maps = np.empty((batch, manifest.map.height, manifest.map.width), np.float32)
        self.timings_ns = {"resize": 0, "network": 0, "kernel": 0}

    def __call__(self, frame: npt.NDArray[np.uint8]) -> tuple[float, npt.NDArray[np.float32]]:
        """Scores a frame.

        Args:
            frame: uint8 (height, width) or (height, width, channels), RGB.

        Returns:
            The score and the anomaly map, float32 (h, w), a copy of its own.

        Raises:
            InputError: The frame is not of that form, or a side is shorter than 16 px.
            FlawlineError: The engine failed, or the score is not finite.
        """
        scores, maps = self.batch([frame])
        return scores[0], maps[0]

    def batch(self, frames: Sequence[npt.NDArray[np.uint8]]) -> tuple[list[float], npt.NDArray[np.float32]]:
        """Scores several frames, for which each factor is read once.

        Args:
            frames: One to `batch` frames, each as for a single one; the network always runs on `batch`.

        Returns:
            The scores and the anomaly maps, float32 (B, h, w): one array of their own.

        Raises:
            InputError: A frame is not of that form, or there are too many or none.
            FlawlineError: The engine failed, or a score is not finite.
        """
        count = require_frames(frames, len(self._maps))
        start = time.perf_counter_ns()
        for slot, frame in enumerate(frames):
            self._extractor.load(slot, frame)
        resized = time.perf_counter_ns()
        maps = self._extractor.run()
        extracted = time.perf_counter_ns()
        _, scores = self._mahalanobis([scale[:count] for scale in maps], self._maps[:count])
        anomaly_maps = self._maps[:count].copy()
        done = time.perf_counter_ns()
        self.timings_ns["resize"] = resized - start
        self.timings_ns["network"] = extracted - resized
        self.timings_ns["kernel"] = done - extracted
        require_finite(scores)
        return scores.tolist(), anomaly_maps

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._extractor.close()

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_frames(frames: Sequence[npt.NDArray[np.uint8]], batch: int) -> int:
    """How many frames there are.

    Raises:
        InputError: They are none, or more than are scored at once.
    """
    if not 1 <= len(frames) <= batch:
        raise InputError(f"{len(frames)} frames at once; expected 1 to {batch}, the batch of this detector")
    return len(frames)


def require_finite(scores: npt.NDArray[np.float32]) -> None:
    """Refuses scores, float32 (B,), of frames that the network made nothing of.

    Raises:
        FlawlineError: A score is not finite.
    """
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        which = "this frame" if len(scores) == 1 else f"frame {wrong[0]} of the batch"
        raise FlawlineError(f"the score is {scores[wrong[0]]}: the network gave NaN or infinite features for {which}")


def _workspace_bytes(manifest: Manifest, threads: int, batch: int) -> int:
    """What the kernel and the maps take at most: each thread's embeddings, and whole maps, orders and distances."""
    rows = 1 if manifest.gaussian.tie == "position" else min(manifest.map.height, -(-_MOST_ROWS // batch))
    embeddings = threads * rows * manifest.map.width * manifest.projection.dimension
    return batch * (4 * embeddings + _BYTES_PER_POSITION * manifest.positions)
