"""Figures of classification and of detection: F1 scores, and scores whose curve is that of moving all percentiles together."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.metrics import image_auroc
from flawline.calibration.class_statistics import ClassStatistics
from flawline.runtime.kernels import mahalanobis

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Detection:
    """How well images out of the distribution are told from normal ones.

    Attributes:
        f1_normal: F1 score with normal images as the positives, the paper's class 1.
        f1_anomalous: With those out of the distribution as the positives.
        rejected: Share of the normal images that are taken for anomalous.
        missed: Share of the anomalous ones that are taken for normal.
        auroc: Area under the receiver operating characteristic of the score.
    """

    f1_normal: float
    f1_anomalous: float
    rejected: float
    missed: float
    auroc: float


def detection(normal: Floats, anomalous: Floats, threshold: float) -> Detection:
    """Measures scores, float32 (n,) of normal and (m,) of anomalous images; above the threshold is anomalous."""
    rejected, caught = int((normal > threshold).sum()), int((anomalous > threshold).sum())
    accepted, missed = len(normal) - rejected, len(anomalous) - caught
    truth = np.arange(len(normal) + len(anomalous)) >= len(normal)
    return Detection(
        f1(accepted, missed, rejected),
        f1(caught, rejected, missed),
        rejected / len(normal),
        missed / len(anomalous),
        image_auroc(truth, np.concatenate((normal, anomalous))),
    )


def f1(true_positives: int, false_positives: int, false_negatives: int) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found of what there is, or there is nothing."""
    total = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / total if total else 0.0


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> float:
    """Mean of the F1 scores of the classes, of labels, int64 (N,), and what was predicted, int64 (N,)."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    right, of_class, called = np.diagonal(counts), counts.sum(1), counts.sum(0)
    return float(
        np.mean([f1(int(right[c]), int(called[c] - right[c]), int(of_class[c] - right[c])) for c in range(classes)])
    )


class Ranks:
    """Scores whose threshold is one percentile of every class: the paper's receiver operating characteristic (figure 5).

    An image is anomalous at percentile p if its distance to each class exceeds the p-th percentile of the distances of the
    class's own images: if the smallest of the shares of those distances that are below its own exceeds p. Beyond the
    largest distance of every class all images have the same score, 1, which the ratio of distance and threshold tells apart.

    Args:
        statistics: Of the K classes.
        features: float32 (N, d), that they were fitted to.
        labels: int64 (N,).
        threads: Threads of the kernel.
    """

    def __init__(self, statistics: ClassStatistics, features: Floats, labels: Labels, *, threads: int = 1) -> None:
        self._gaussians = statistics.gaussians
        self._threads = threads
        distances = self._distances(features)
        self._own = [np.sort(distances[labels == index, index]) for index in range(distances.shape[1])]

    def scores(self, features: Floats) -> Floats:
        """Scores, float32 (n,) from 0 to 1, of features, float32 (n, d)."""
        distances = self._distances(features)
        shares = [np.searchsorted(own, distances[:, index]) / len(own) for index, own in enumerate(self._own)]
        return np.asarray(np.min(shares, axis=0), np.float32)

    def _distances(self, features: Floats) -> Floats:
        return mahalanobis(np.ascontiguousarray(features)[:, None], self._gaussians, threads=self._threads)


def curve(normal: Floats, anomalous: Floats) -> tuple[list[float], list[float]]:
    """Receiver operating characteristic: shares of normal and of anomalous images above each threshold, from 0 to 1."""
    scores = np.unique(np.concatenate((normal, anomalous)))[::-1]
    shares = []
    for own in (normal, anomalous):
        below = np.searchsorted(np.sort(own), scores, side="left")
        shares.append([0.0, *(1 - below / len(own)).tolist()])
    return shares[0], shares[1]
