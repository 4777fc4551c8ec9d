"""Frames to anomaly maps and scores, for detectors whose network takes a whole frame at once."""

import abc
import time
from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle.manifest import AnyManifest, Manifest
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.memory import require

_S = TypeVar("_S", bound="FrameScorer")


class FrameScorer(abc.ABC):
    """Frames to anomaly maps and scores: the part of a detector that needs no threshold.

    Each kind of detector has a class of its own, which says what is made of the network's outputs. Everything is
    allocated at construction, before the first frame, but the one map per frame that is handed out.

    Args:
        features: Bytes of the ONNX file.
        manifest: Manifest of the bundle.
        backend: Name of the engine.
        threads: Threads of the engine.
        batch: Most frames that are scored at once.
        needed: Names of the outputs of the network that the maps are made of; all if None.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last call took.
    """

    def __init__(
        self,
        features: bytes,
        manifest: AnyManifest,
        *,
        backend: str,
        threads: int,
        batch: int,
        needed: Collection[str] | None = None,
    ) -> None:
        self._extractor = FeatureExtractor(
            features,
            manifest.input,
            manifest.network,
            manifest.output_channels,
            backend=backend,
            threads=threads,
            batch=batch,
            open_size=manifest.web is not None,
            needed=needed,
        )
        self.backend = self._extractor.backend_name
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
        """Scores several frames, for which the model is read once.

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
        outputs = self._extractor.run()
        extracted = time.perf_counter_ns()
        scores = self._score([output[:count] for output in outputs], self._maps[:count])
        anomaly_maps = self._maps[:count].copy()
        done = time.perf_counter_ns()
        self.timings_ns["resize"] = resized - start
        self.timings_ns["network"] = extracted - resized
        self.timings_ns["kernel"] = done - extracted
        require_finite(scores)
        return scores.tolist(), anomaly_maps

    @abc.abstractmethod
    def _score(
        self, outputs: Sequence[npt.NDArray[np.float32]], maps: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Makes anomaly maps of the network's outputs.

        Args:
            outputs: float32 (B, d, h, w) each, those that were asked for.
            maps: float32 (B, h, w), written to.

        Returns:
            float32 (B,), the score of each frame: the maximum of its map.
        """

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._extractor.close()

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_room(needed_bytes: int, manifest: Manifest, *, threads: int, batch: int) -> None:
    """Refuses a batch that there is no memory for, before anything is allocated.

    Args:
        needed_bytes: What the kernel and the maps take.
        manifest: Manifest of the bundle.
        threads: Threads of the kernel.
        batch: Most frames that are scored at once.

    Raises:
        InputError: The batch holds no frame.
        ResourceError: There is less memory than that.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}; expected 1 or more frames")
    require(
        needed_bytes,
        f"a map of {manifest.map.height} x {manifest.map.width} positions in {threads} threads",
        "fit with a coarser map, or use fewer threads or a smaller batch",
    )


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
