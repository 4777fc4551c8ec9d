"""The gate of classifiers: scores of the file that ships against torch and the paper's equations in float64.

Nothing of the runtime but its resize is used here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.calibration.class_statistics import ClassOptions, class_moments
from flawline.export.parity import ParityError
from flawline.runtime.bundle.manifest import Input, Report, ScoreKind
from flawline.runtime.resizing import resize_into

Frame = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-3, "int8": 1e-2}
"""Largest relative error of a score that passes, by the type of the factors."""
PROBABILITY_TOLERANCE = 1e-3
"""Largest difference of a class's probability that passes."""


@dataclass(frozen=True)
class Network:
    """A classifier once more, in float64, by other means than the file that ships.

    Attributes:
        name: What it is, for the report.
        features: Images, uint8 (N, height, width) or (N, height, width, 3) at the detector's size, to deep features, projected:
            float64 (N, d).
        anomalous: Such images to the second head's probability of being none of the classes, float64 (N,); None without one.
    """

    name: str
    features: Callable[[Frame], Doubles]
    anomalous: Callable[[Frame], Doubles] | None = None


class ReferenceScores:
    """Scores of frames by a reference, as maps of one position.

    Args:
        network: The network.
        learnt: float32 (N, d), the features that the classes were learnt from.
        labels: int64 (N,), the class of each.
        options: How the classes are modelled.
        added: What was added to the diagonal of every covariance.
        frame_input: How frames reach the network.
        kind: Of the scores.

    Attributes:
        name: What the reference is.
    """

    def __init__(
        self,
        network: Network,
        learnt: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        options: ClassOptions,
        added: float,
        frame_input: Input,
        kind: ScoreKind,
    ) -> None:
        self.name = f"{network.name} and the paper's test in float64"
        self._network, self._input, self._kind = network, frame_input, kind
        self._learnt, self._labels, self._options, self._added = learnt, labels, options, added

    def __call__(self, frames: Sequence[Frame]) -> Doubles:
        """Scores of frames, uint8 (height, width) or (height, width, 3) each: float64 (B, 1, 1)."""
        images = np.stack([self._resized(frame) for frame in frames])
        if self._kind == "head":
            if self._network.anomalous is None:
                raise ValueError("scores of a second head and a reference without one; expected one with it")
            return self._network.anomalous(images).reshape(-1, 1, 1)
        features = self._network.features(images)
        scores = np.full(len(frames), np.inf)
        # One inverse at a time: those of all classes may be larger than memory.
        for index in range(int(self._labels.max()) + 1):
            np.minimum(scores, self._ratios(features, self._learnt[self._labels == index]), out=scores)
        return scores.reshape(-1, 1, 1)

    def _ratios(self, features: Doubles, own: npt.NDArray[np.float32]) -> Doubles:
        """Distances (B,) to the class that was learnt from its own features (n, d), relative to its threshold."""
        mean, covariance = class_moments(own, self._options)
        inverse = np.asarray(np.linalg.inv(covariance + self._added * np.eye(len(mean))), np.float64)
        threshold = np.percentile(_distances(own, mean, inverse), self._options.percentile)
        return np.asarray(_distances(features, mean, inverse) / threshold, np.float64)

    def _resized(self, frame: Frame) -> Frame:
        expected = self._input
        shape = (expected.height, expected.width)
        image = np.empty(shape if expected.channels == 1 else (*shape, 3), np.uint8)
        resize_into(frame, image, expected.interpolation)
        return image


def check_probabilities(logits: npt.NDArray[np.float32], expected: Doubles) -> Report:
    """Compares probabilities of the classes and lets pass only what agrees.

    Args:
        logits: float32 (B, K), of the file that ships.
        expected: float64 (B, K), probabilities by other means.

    Returns:
        What the manifest says of it, beside the scores.

    Raises:
        ParityError: A difference is beyond the tolerance, or not finite.
    """
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    worst = float(np.abs(exponentials / exponentials.sum(axis=1, keepdims=True) - expected).max())
    if not worst <= PROBABILITY_TOLERANCE:
        raise ParityError(
            f"the exported classifier does not give the class probabilities of torch in float64: largest difference {worst:.2g} "
            f"on {len(logits)} images, tolerance {PROBABILITY_TOLERANCE:g}; nothing was written"
        )
    return {"class_probability_error_max": worst, "class_probability_tolerance": PROBABILITY_TOLERANCE}


def _distances(vectors: npt.NDArray[np.floating], mean: Doubles, inverse: Doubles) -> Doubles:
    """Mahalanobis distances (n,) of vectors (n, d)."""
    centred = vectors - mean
    return np.asarray(np.sqrt(((centred @ inverse) * centred).sum(axis=1)), np.float64)
