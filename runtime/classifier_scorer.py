"""Frames to classes, distances and scores by a classifier: its network, and Mahalanobis distances to all classes behind it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime import memory
from flawline.runtime.bundle.manifest import ClassifierManifest
from flawline.runtime.classification import Classification
from flawline.runtime.errors import FlawlineError
from flawline.runtime.frame_scorer import FrameScorer
from flawline.runtime.kernels import Gaussians, mahalanobis
from flawline.runtime.kernels.checks import require_count

_FLOAT_BYTES = 4
_ROWS_OF_CLASSES = 5
"""Per frame: logits, distances, distances in thresholds, their copies that are handed out, exponentials."""
MOST_LOG_ODDS = 80.0
"""Beyond it, probabilities near 0 are no normal numbers of float32 any more."""


class ClassifierScorer(FrameScorer):
    """Frames to classes and scores; the map of a frame is its score alone. Each factor is read once for all frames of a batch.

    With the distance d_c of the deep features to class c and the threshold t_c of that class, the score `mahalanobis` is
    min_c d_c / t_c: above 1, a frame is beyond the threshold of every class. The score `head` is the second head's probability
    that the frame is of none of the classes.

    Args:
        features: Bytes of the ONNX file.
        manifest: Manifest of the bundle.
        gaussians: Of the deep features of each class, in the order of the classes.
        class_thresholds: float32 (K,), positive: the distance t_c of each class.
        backend: Name of the engine.
        threads: Threads of the engine and of the kernel.
        batch: Most frames that are scored at once.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last call took.
        classifications: Of each frame of the last call.
    """

    def __init__(
        self,
        features: bytes,
        manifest: ClassifierManifest,
        gaussians: Gaussians,
        class_thresholds: npt.NDArray[np.float32],
        *,
        backend: str,
        threads: int = 1,
        batch: int = 1,
    ) -> None:
        classes = len(manifest.classifier.classes)
        require_count("batch", batch)
        memory.require(
            _FLOAT_BYTES * batch * (sum(manifest.output_channels) + _ROWS_OF_CLASSES * classes),
            f"{classes} classes of {batch} frames at once",
            "use a smaller batch",
        )
        super().__init__(features, manifest, backend=backend, threads=threads, batch=batch)
        self._classes = manifest.classifier.classes
        self._kind = manifest.classifier.score
        self._gaussians, self._thresholds, self._threads = gaussians, class_thresholds, threads
        self._distances = np.empty((batch, classes), np.float32)
        self._relative = np.empty((batch, classes), np.float32)
        self._exponentials = np.empty((batch, classes), np.float32)
        self.classifications: list[Classification] = []

    def _score(
        self, outputs: Sequence[npt.NDArray[np.float32]], maps: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        count = len(maps)
        features, logits, *heads = (output[:, :, 0, 0] for output in outputs)
        for name, values in (("features", features), ("logits", logits)):
            if not np.isfinite(values).all():
                raise FlawlineError(f"the network gave NaN or infinite {name}")
        distances, relative = self._distances[:count], self._relative[:count]
        mahalanobis(features[:, None], self._gaussians, distances, threads=self._threads)
        if not np.isfinite(distances).all():
            raise FlawlineError("the features gave NaN or infinite distances to classes")
        np.divide(distances, self._thresholds, out=relative)
        probabilities = self._largest_probabilities(logits)
        anomalous = _probabilities(heads[0][:, 0]) if heads else None
        labels, nearest = logits.argmax(axis=1), relative.argmin(axis=1)
        self.classifications = [
            Classification(
                label=self._classes[labels[frame]],
                probability=float(probabilities[frame]),
                nearest=self._classes[nearest[frame]],
                distances=distances[frame].copy(),
                head=None if anomalous is None else 1 - float(anomalous[frame]),
            )
            for frame in range(count)
        ]
        scores = relative.min(axis=1) if self._kind == "mahalanobis" or anomalous is None else anomalous
        maps[:, 0, 0] = scores
        return scores

    def _largest_probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (B,): the largest softmax of each row of float32 (B, K)."""
        exponentials = self._exponentials[: len(logits)]
        np.subtract(logits, logits.max(axis=1, keepdims=True), out=exponentials)
        np.exp(exponentials, out=exponentials)
        probabilities: npt.NDArray[np.float32] = 1 / exponentials.sum(axis=1)
        return probabilities


def _probabilities(log_odds: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """float32 (B,), what a second head gave, as probabilities, which stay above 0.

    Raises:
        FlawlineError: A number is not finite.
    """
    if not np.isfinite(log_odds).all():
        raise FlawlineError("the second head gave NaN or infinity")
    limited = np.clip(log_odds, np.float32(-MOST_LOG_ODDS), np.float32(MOST_LOG_ODDS))
    found: npt.NDArray[np.float32] = np.reciprocal(1 + np.exp(-limited))
    return found
