"""The gate of classifiers: scores of the file that ships against torch and the paper's equations in float64.

Nothing of the runtime but its resize is used here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.calibration.class_statistics import ClassOptions, class_moments
from flawline.runtime.bundle.manifest import Input, ScoreKind
from flawline.runtime.resizing import resize_into

Frame = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-3, "int8": 1e-2}
"""Largest relative error of a score that passes, by the type of the factors."""


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
        self._classes: list[tuple[Doubles, Doubles, float]] = []
        if kind == "mahalanobis":
            for index in range(int(labels.max()) + 1):
                own = learnt[labels == index]
                mean, covariance = class_moments(own, options)
                inverse = np.asarray(np.linalg.inv(covariance + added * np.eye(len(mean))), np.float64)
                threshold = float(np.percentile(_distances(own, mean, inverse), options.percentile))
                self._classes.append((mean, inverse, threshold))

    def __call__(self, frames: Sequence[Frame]) -> Doubles:
        """Scores of frames, uint8 (height, width) or (height, width, 3) each: float64 (B, 1, 1)."""
        images = np.stack([self._resized(frame) for frame in frames])
        if self._kind == "head":
            if self._network.anomalous is None:
                raise ValueError("scores of a second head and a reference without one; expected one with it")
            return self._network.anomalous(images).reshape(-1, 1, 1)
        features = self._network.features(images)
        ratios = [_distances(features, mean, inverse) / threshold for mean, inverse, threshold in self._classes]
        return np.asarray(np.min(ratios, axis=0), np.float64).reshape(-1, 1, 1)

    def _resized(self, frame: Frame) -> Frame:
        expected = self._input
        shape = (expected.height, expected.width)
        image = np.empty(shape if expected.channels == 1 else (*shape, 3), np.uint8)
        resize_into(frame, image, expected.interpolation)
        return image


def _distances(vectors: npt.NDArray[np.floating], mean: Doubles, inverse: Doubles) -> Doubles:
    """Mahalanobis distances (n,) of vectors (n, d)."""
    centred = vectors - mean
    return np.asarray(np.sqrt(((centred @ inverse) * centred).sum(axis=1)), np.float64)
