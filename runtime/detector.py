"""A bundle, opened: frames in, scores, maps, verdicts and regions out."""

import math
import os
import time
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.runtime.backends import preferred_engine
from flawline.runtime.bundle import Bundle, MapKind, read
from flawline.runtime.classification import Classification
from flawline.runtime.classifier_scorer import ClassifierScorer
from flawline.runtime.engines import AnyScorer, is_on_gpu, open_scorer
from flawline.runtime.errors import DeviceError, FlawlineError, InputError
from flawline.runtime.precisions import Precision
from flawline.runtime.regions import Region, find_regions
from flawline.runtime.web.pieces import PieceScorer


class Result(msgspec.Struct, frozen=True, eq=False):
    """What a detector says of one frame.

    Attributes:
        score: Anomaly score: the maximum of the map.
        threshold: Scores above it are rejected.
        p_value: Share of good images that score at least as high, (1 + #) / (n + 1); small means anomalous.
        map: float32 (h, w), the anomaly map: smoothed Mahalanobis distances, or one of `MapKind`; (1, 1) with the score of a
            classifier.
        regions: Parts of the frame above the threshold, highest peak first.
        engine: Name of the engine that scored the frame.
        classification: Class, probability and distances by a classifier; None by another detector.
    """

    score: float
    threshold: float
    p_value: float
    map: npt.NDArray[np.float32]
    regions: list[Region]
    engine: str
    classification: Classification | None = None

    @property
    def verdict(self) -> Literal["good", "reject"]:
        """Whether the frame passes."""
        return "reject" if self.score > self.threshold else "good"


class Detector:
    """A detector from a bundle. Open it with `Detector.open`; use it as a context manager or call `close`.

    Attributes:
        bundle: What was opened.
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last frame took.
        fallback_reason: Why it runs on the CPU and not on the GPU that was asked for; None if it does not.
    """

    def __init__(
        self, bundle: Bundle, *, backend: str = "auto", threads: int = 1, batch: int = 1, fallback: bool = False
    ) -> None:
        self.bundle = bundle
        self.threshold = bundle.manifest.threshold.score
        self.fallback_reason: str | None = None
        self._threads, self._batch, self._fallback = threads, batch, fallback
        self._scorer: AnyScorer | PieceScorer | None
        try:
            self._use(self._open(backend))
        except FlawlineError as error:
            if not (fallback and is_on_gpu(backend)):
                raise
            self._fall_back(error)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        precision: Precision | None = None,
        threads: int = 1,
        batch: int = 1,
        fallback: bool = False,
        map: MapKind | None = None,  # noqa: A002 -- as the option is called
    ) -> "Detector":
        """Opens a bundle and allocates everything that scoring needs.

        Args:
            path: Folder of the bundle.
            backend: Name of the engine, or `auto` for the one that `fastest_engine` finds.
            precision: Of the network, one that the bundle holds; its own if None.
            threads: Threads of the engine and of the kernel.
            batch: Most frames that are scored at once.
            fallback: Whether to go on with an engine on the CPU where a GPU cannot be had or fails; see
                `fallback_reason` and `Result.engine`.
            map: Kind of the anomaly map, one that the bundle of a reconstruction detector or a classifier offers; the one
                it was written with if None.

        Raises:
            BundleError: The bundle is damaged, malformed or newer than this version reads.
            InputError: The bundle does not hold that precision or map, or the engine does not compute in it.
            MissingExtraError: The engine is not installed.
            EngineError: No engine gives the golden scores.
            DeviceError: The GPU or its driver is not what is needed.
            ResourceError: The bundle asks for more memory than there is.
        """
        bundle = read(path).select(precision).with_map(map)
        return cls(bundle, backend=backend, threads=threads, batch=batch, fallback=fallback)

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
        return self.batch([frame])[0]

    def batch(self, frames: Sequence[npt.NDArray[np.uint8]]) -> list[Result]:
        """Scores several frames at once, such as the tiles of a wide web; each factor is then read once for all of them.

        Args:
            frames: One to `batch` frames (see `open`), each as for a single one.

        Returns:
            A result per frame.

        Raises:
            InputError: A frame is not of that form, or there are too many or none.
            DeviceError: The GPU failed. The detector is closed then.
            FlawlineError: The engine failed, a score is not finite, or the detector is closed.
        """
        if self._scorer is None:
            raise FlawlineError("the detector is closed; open the bundle again")
        for frame in frames:
            if not isinstance(frame, np.ndarray):
                raise InputError(f"frame is a {type(frame).__name__}; expected a NumPy array of uint8")
        try:
            scores, maps = self._scorer.batch(frames)
        except DeviceError as error:
            if not self._fallback:
                # The scorer has closed itself, and knows what would help.
                raise
            self.close()
            self._fall_back(error)
            scores, maps = self._scorer.batch(frames)
        start = time.perf_counter_ns()
        classified: Sequence[Classification | None] = [None] * len(frames)
        if isinstance(self._scorer, ClassifierScorer):
            classified = self._scorer.classifications
        results = [self._result(*of_one) for of_one in zip(scores, maps, frames, classified, strict=True)]
        self.timings_ns.update(self._scorer.timings_ns)
        self.timings_ns["regions"] = time.perf_counter_ns() - start
        return results

    def _result(
        self,
        score: float,
        anomaly_map: npt.NDArray[np.float32],
        frame: npt.NDArray[np.uint8],
        classification: Classification | None,
    ) -> Result:
        rejected = score > self.threshold
        return Result(
            score=score,
            threshold=self.threshold,
            p_value=self.p_value(score),
            map=anomaly_map,
            regions=find_regions(anomaly_map, self.threshold, frame.shape[:2]) if rejected else [],
            engine=self.backend,
            classification=classification,
        )

    def _open(self, backend: str) -> AnyScorer | PieceScorer:
        if self.bundle.manifest.web is not None:
            return PieceScorer(self.bundle, backend, threads=self._threads, batch=self._batch)
        return open_scorer(self.bundle, backend, threads=self._threads, batch=self._batch)

    def _use(self, scorer: AnyScorer | PieceScorer) -> None:
        self._scorer = scorer
        self.backend = scorer.backend
        self.timings_ns = scorer.timings_ns | {"regions": 0}

    def _fall_back(self, error: FlawlineError) -> None:
        self.fallback_reason = str(error)
        engine = preferred_engine(self.bundle.manifest.network.precision)
        self._use(self._open(engine))

    def p_value(self, score: float) -> float:
        """Conformal p-value of a score, see `Bundle.p_value`."""
        return self.bundle.p_value(score)

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
