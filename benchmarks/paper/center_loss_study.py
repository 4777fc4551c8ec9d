"""A classifier with center loss, its deep features, and the two tests that are built on them.

Source: "Anomaly Detection in Image Datasets Using Convolutional Neural Networks, Center Loss, and Mahalanobis Distance"
(2021), section II.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from flawline.benchmarks.metrics import image_auroc
from flawline.benchmarks.paper.center_loss_data import Experiment
from flawline.benchmarks.paper.center_loss_options import CenterLossStudy
from flawline.benchmarks.paper.center_loss_scores import Detection, Ranks, curve, detection, macro_f1
from flawline.calibration.class_statistics import class_scores, fit_classes
from flawline.detectors.classifier import Classifier
from flawline.detectors.classifier_training import deep_features, train_classifier, train_second_head
from flawline.detectors.classifiers import build_classifier
from flawline.detectors.second_head import SecondHead
from flawline.detectors.torch_threads import torch_threads

Floats = npt.NDArray[np.float32]

_EVEN = 0.0


@dataclass(frozen=True)
class Outcome:
    """One network of one experiment.

    Attributes:
        experiment: Its normal classes.
        network: Which classifier.
        anomalies: The paper's anomaly set.
        center_weight: Lambda.
        seed: Of the training.
        trained: Normal images to learn from, those for validation included.
        head_trained: Anomalous ones that the second head learnt from, likewise.
        normal: Normal images tested.
        anomalous: Anomalous ones.
        epochs: Mean loss of training and of validation images after each.
        best_epoch: Whose weights were taken: that of the lowest validation loss.
        accuracy: Share of normal test images in the right class.
        f1: Mean over the classes of their F1 scores.
        semi_supervised: The test by Mahalanobis distance, a threshold per class.
        percentiles_auroc: Area under its curve as the paper draws it, by one percentile of all classes.
        supervised: The test by the second head, at a probability of 0.5.
        transfer: The second head trained with one set of anomalies, tested on another: "trained -> tested".
        norm_normal: Mean length of the deep features of normal test images.
        norm_anomalous: Of anomalous ones.
    """

    experiment: str
    network: str
    anomalies: str
    center_weight: float
    seed: int
    trained: int
    head_trained: int
    normal: int
    anomalous: int
    epochs: tuple[tuple[float, float], ...]
    best_epoch: int
    accuracy: float
    f1: float
    semi_supervised: Detection
    percentiles_auroc: float
    supervised: Detection
    transfer: Mapping[str, Detection]
    norm_normal: float
    norm_anomalous: float


class Drawn(NamedTuple):
    """What the paper's figures 5 and 6 show of a network.

    Attributes:
        curves: Shares of normal and of anomalous images above each threshold, by test.
        normal: float32 (n, 2), normal deep features along their first two principal components.
        labels: int64 (n,), their classes.
        anomalous: float32 (m, 2), the anomalous ones along the same axes.
        zero: float32 (2,), the zero vector there.
    """

    curves: dict[str, tuple[list[float], list[float]]]
    normal: Floats
    labels: npt.NDArray[np.int64]
    anomalous: Floats
    zero: Floats


def run(
    study: CenterLossStudy, experiments: list[Experiment], say: Callable[[str], object]
) -> Iterator[tuple[Outcome, Drawn]]:
    """Trains and tests, experiment by experiment, seed by seed and lambda by lambda.

    Args:
        study: What is asked.
        experiments: On what.
        say: Takes each line that tells what is being done.

    Raises:
        InputError: Too few images of a class, or to hold some out.
        DivergedError: A loss became NaN or infinite.
    """
    with torch_threads(study.threads):
        for experiment in experiments:
            for seed in range(study.seed, study.seed + study.seeds):
                for center_weight in study.lambdas:
                    say(
                        f"{experiment.name}, seed {seed}, lambda {center_weight:g}: {len(experiment.train.images)} images"
                    )
                    yield _one(study, experiment, center_weight, seed)


def _one(study: CenterLossStudy, experiment: Experiment, center_weight: float, seed: int) -> tuple[Outcome, Drawn]:
    images, labels = experiment.train
    shape = images.shape
    network, _ = build_classifier(
        experiment.network, len(experiment.classes), channels=shape.channels, side_px=shape.height, seed=seed
    )
    training = train_classifier(network, images, labels, study.training(experiment.network, center_weight, seed))
    learnt, tested = deep_features(network, images), deep_features(network, experiment.test.images)
    predicted = _predicted(network, tested)
    statistics = fit_classes(learnt, labels, experiment.classes, threads=study.threads)
    ranks = Ranks(statistics, learnt, labels, threads=study.threads)

    strange = {name: deep_features(network, one.test) for name, one in experiment.anomalies.items()}
    anomalous = strange[experiment.paper]
    near, far = (
        class_scores(statistics.gaussians, statistics.thresholds, features, threads=study.threads)
        for features in (tested, anomalous)
    )
    by_percentile = ranks.scores(tested), ranks.scores(anomalous)

    heads, learnt_from = {}, {}
    for name, one in experiment.anomalies.items():
        known = deep_features(network, one.train)
        learnt_from[name] = len(known)
        heads[name] = SecondHead(network.feature_dimension, seed=seed)
        train_second_head(heads[name], learnt, known, study.head_training(seed))
    normal = {name: _strangeness(head, tested) for name, head in heads.items()}
    own = heads[experiment.paper]
    supervised = normal[experiment.paper], _strangeness(own, anomalous)
    outcome = Outcome(
        experiment=experiment.name,
        network=experiment.network,
        anomalies=experiment.paper,
        center_weight=center_weight,
        seed=seed,
        trained=len(images),
        head_trained=learnt_from[experiment.paper],
        normal=len(tested),
        anomalous=len(anomalous),
        epochs=training.epochs,
        best_epoch=training.best_epoch,
        accuracy=float((predicted == experiment.test.labels).mean()),
        f1=macro_f1(experiment.test.labels, predicted, len(experiment.classes)),
        semi_supervised=detection(near, far, 1.0),
        percentiles_auroc=_auroc(*by_percentile),
        supervised=detection(*supervised, _EVEN),
        transfer={
            f"{name} -> {other}": detection(normal[name], _strangeness(head, strange[other]), _EVEN)
            for name, head in heads.items()
            for other in strange
            if other != name
        },
        norm_normal=_length(tested),
        norm_anomalous=_length(anomalous),
    )
    curves = {"Mahalanobis distance": curve(*by_percentile), "second head": curve(*supervised)}
    return outcome, Drawn(curves, *_plane(tested, experiment.test.labels, anomalous))


def _predicted(network: Classifier, features: Floats) -> npt.NDArray[np.int64]:
    with torch.no_grad():
        return np.asarray(network.logits(torch.from_numpy(features)).argmax(1), np.int64)


def _strangeness(head: SecondHead, features: Floats) -> Floats:
    """Minus the logit of being normal, float32 (n,): above 0 the probability is below 0.5, and none saturates."""
    with torch.no_grad():
        return np.asarray(-head.logits(torch.from_numpy(features))[:, 0], np.float32)


def _auroc(normal: Floats, anomalous: Floats) -> float:
    truth = np.arange(len(normal) + len(anomalous)) >= len(normal)
    return image_auroc(truth, np.concatenate((normal, anomalous)))


def _length(features: Floats) -> float:
    return float(np.linalg.norm(features, axis=1).mean())


def _plane(
    normal: Floats, labels: npt.NDArray[np.int64], anomalous: Floats
) -> tuple[Floats, npt.NDArray[np.int64], Floats, Floats]:
    """Features along the first two principal components of the normal ones, and the zero vector there."""
    mean = normal.mean(0)
    axes = np.linalg.svd(normal - mean, full_matrices=False)[2][:2].T
    return (normal - mean) @ axes, labels, (anomalous - mean) @ axes, -mean @ axes
