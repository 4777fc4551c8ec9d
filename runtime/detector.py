"""A bundle, opened: frames in, scores, maps, verdicts and regions out."""

import math
import os
import time
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle import Bundle, read
from flawline.runtime.bundle.manifest import Manifest
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.kernels import Gaussians, MahalanobisMap
from flawline.runtime.memory import require
from flawline.runtime.regions import Region, find_regions

_MOST_ROWS = 8
"""Rows of embeddings that a thread of the kernel holds at once where they share Gaussians; otherwise one."""

_BYTES_PER_POSITION = 32
"""Distances before and after smoothing and a result, float32; the order of the positions with what sorts them."""


class Result(msgspec.Struct, frozen=True, eq=False):
    """What a detector says of one frame.

    Attributes:
        score: Anomaly score: the maximum of the map.
        threshold: Scores above it are rejected.
        p_value: Share of good images that score at least as high, (1 + #) / (n + 1); small means anomalous.
        map: float32 (h, w), the anomaly map: smoothed Mahalanobis distances.
        regions: Parts of the frame above the threshold, highest peak first.
    """

    score: float
    threshold: float
    p_value: float
    map: npt.NDArray[np.float32]
    regions: list[Region]

    @property
    def verdict(self) -> Literal["good", "reject"]:
        """Whether the frame passes."""
        return "reject" if self.score > self.threshold else "good"


class Scorer:
    """Frames to anomaly maps and scores: the part of a detector that needs no threshold.

    Everything is allocated here, before the first frame, but the one map per frame that is handed out.

    Args:
        features: Bytes of the ONNX file.
        manifest: Manifest of the bundle.
        gaussians: Statistics of the good images.
        backend: Name of the engine, or `auto`.
        threads: Threads of the engine and of the kernel.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last frame took.
    """

    def __init__(
        self, features: bytes, manifest: Manifest, gaussians: Gaussians, *, backend: str = "auto", threads: int = 1
    ) -> None:
        self._extractor = FeatureExtractor(
            features, manifest.input, manifest.network, manifest.projection.dimension, backend=backend, threads=threads
        )
        self.backend = self._extractor.backend_name
        require(
            _workspace_bytes(manifest, threads),
            f"a map of {manifest.map.height} x {manifest.map.width} positions in {threads} threads",
            "fit with a coarser map, or use fewer threads",
        )
        self._mahalanobis = MahalanobisMap(
            gaussians,
            [(output.height, output.width) for output in manifest.network.outputs],
            (manifest.map.height, manifest.map.width),
            upsampling=manifest.map.upsampling,
            sigma=manifest.map.sigma,
            threads=threads,
        )
        self._maps = np.empty((1, manifest.map.height, manifest.map.width), np.float32)
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
        start = time.perf_counter_ns()
        self._extractor.load(0, frame)
        resized = time.perf_counter_ns()
        maps = self._extractor.run()
        extracted = time.perf_counter_ns()
        _, scores = self._mahalanobis(maps, self._maps)
        score = float(scores[0])
        anomaly_map = self._maps[0].copy()
        done = time.perf_counter_ns()
        self.timings_ns["resize"] = resized - start
        self.timings_ns["network"] = extracted - resized
        self.timings_ns["kernel"] = done - extracted
        if not math.isfinite(score):
            raise FlawlineError(f"the score is {score}: the network gave NaN or infinite features for this frame")
        return score, anomaly_map

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._extractor.close()


def _workspace_bytes(manifest: Manifest, threads: int) -> int:
    """What the kernel and the maps take at most: each thread's embeddings, and whole maps, orders and distances."""
    rows = min(manifest.map.height, _MOST_ROWS)
    embeddings = threads * rows * manifest.map.width * manifest.projection.dimension
    return 4 * embeddings + _BYTES_PER_POSITION * manifest.positions


class Detector:
    """A detector from a bundle. Open it with `Detector.open`; use it as a context manager or call `close`.

    Attributes:
        bundle: What was opened.
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last frame took.
    """

    def __init__(self, bundle: Bundle, *, backend: str = "auto", threads: int = 1) -> None:
        statistics = bundle.statistics
        gaussians = Gaussians(
            means=statistics["means"],
            factors=statistics["factors"],
            scales=statistics["scales"],
            assignment=statistics["assignment"],
        )
        self.bundle = bundle
        self.threshold = bundle.manifest.threshold.score
        self._calibration_scores = statistics["calibration_scores"]
        scorer = Scorer(bundle.features, bundle.manifest, gaussians, backend=backend, threads=threads)
        self.backend = scorer.backend
        self.timings_ns = scorer.timings_ns | {"regions": 0}
        self._scorer: Scorer | None = scorer

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, backend: str = "auto", threads: int = 1) -> "Detector":
        """Opens a bundle and allocates everything that scoring needs.

        Args:
            path: Folder of the bundle.
            backend: Name of the engine, or `auto`.
            threads: Threads of the engine and of the kernel.

        Raises:
            BundleError: The bundle is damaged, malformed or newer than this version reads.
            MissingExtraError: The engine is not installed.
            ResourceError: The bundle asks for more memory than there is.
        """
        return cls(read(path), backend=backend, threads=threads)

    @property
    def threshold(self) -> float:
        """Scores above it are rejected; may be set at any time, to any finite number.

        Raises:
            InputError: It is set to NaN or infinity, with which the verdict would not depend on the frame.
        """
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not math.isfinite(value):
            raise InputError(f"threshold is {value}; expected a finite score")
        self._threshold = float(value)

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Result:
        """Scores a frame.

        Args:
            frame: uint8 (height, width) or (height, width, channels), RGB; any size from 16 x 16 px.

        Returns:
            Score, verdict, p-value, map and regions.

        Raises:
            InputError: The frame is not of that form.
            FlawlineError: The engine failed, the score is not finite, or the detector is closed.
        """
        if self._scorer is None:
            raise FlawlineError("the detector is closed; open the bundle again")
        if not isinstance(frame, np.ndarray):
            raise InputError(f"frame is a {type(frame).__name__}; expected a NumPy array of uint8")
        score, anomaly_map = self._scorer(frame)
        start = time.perf_counter_ns()
        regions = find_regions(anomaly_map, self.threshold, frame.shape[:2]) if score > self.threshold else []
        self.timings_ns.update(self._scorer.timings_ns)
        self.timings_ns["regions"] = time.perf_counter_ns() - start
        return Result(
            score=score,
            threshold=self.threshold,
            p_value=self.p_value(score),
            map=anomaly_map,
            regions=regions,
        )

    def p_value(self, score: float) -> float:
        """Conformal p-value of a score: (1 + number of calibration scores >= score) / (n + 1)."""
        scores = self._calibration_scores
        at_least = len(scores) - int(np.searchsorted(scores, np.float32(score), side="left"))
        return (1 + at_least) / (len(scores) + 1)

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
