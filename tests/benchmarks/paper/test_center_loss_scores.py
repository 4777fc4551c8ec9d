"""Figures of both tests against what can be counted by hand, and against scikit-learn."""

import numpy as np
import pytest

from flawline.benchmarks.paper.center_loss_scores import Ranks, curve, detection, f1, macro_f1
from flawline.calibration.class_statistics import ClassOptions, class_scores, fit_classes, own_distances

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def clouds(count: int, *, dimension: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes around different centres, float32 (2 count, d) and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1], count)
    centres = np.array([[0.0] * dimension, [8.0] * dimension])
    return (centres[labels] + generator.standard_normal((2 * count, dimension))).astype(np.float32), labels


def test_a_detection_counts_what_is_rejected_and_missed() -> None:
    found = detection(np.array([0.1, 0.2, 0.9, 0.3], np.float32), np.array([0.8, 0.4], np.float32), 0.5)
    assert (found.rejected, found.missed) == (0.25, 0.5)
    # Accepted are three normal ones and an anomalous one; rejected one of each.
    assert found.f1_normal == pytest.approx(2 * 0.75 * 0.75 / 1.5)
    assert found.f1_anomalous == pytest.approx(0.5)
    # Of eight pairs six are in order.
    assert found.auroc == pytest.approx(6 / 8)


def test_the_positive_class_makes_the_f1_score() -> None:
    accepts_all = detection(np.zeros(9, np.float32), np.array([0.1], np.float32), 1.0)
    assert accepts_all.f1_normal == pytest.approx(18 / 19)
    assert accepts_all.f1_anomalous == 0.0
    assert f1(0, 0, 0) == 0.0


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_macro_f1_is_that_of_scikit_learn(classes: int) -> None:
    generator = np.random.default_rng(classes)
    labels, predicted = generator.integers(0, classes, (2, 200))
    predicted[:120] = labels[:120]
    expected = sklearn_metrics.f1_score(labels, predicted, average="macro")
    assert macro_f1(labels, predicted, classes) == pytest.approx(expected)


def test_curve_has_the_area_that_is_the_auroc_and_joins_ties() -> None:
    generator = np.random.default_rng(3)
    normal, anomalous = (generator.integers(0, 9, size).astype(np.float32) for size in (60, 40))
    anomalous += 2
    rejected, caught = curve(normal, anomalous)
    assert (rejected[0], caught[0], rejected[-1], caught[-1]) == (0, 0, 1, 1)
    area = np.diff(rejected) @ (np.array(caught[1:]) + caught[:-1]) / 2
    assert area == pytest.approx(detection(normal, anomalous, 0).auroc)


def test_ranks_decide_as_one_percentile_of_every_class_does() -> None:
    features, labels = clouds(200)
    statistics = fit_classes(features, labels, ("a", "b"), ClassOptions(factors="fp32"))
    ranks = Ranks(statistics, features, labels)
    tested = np.concatenate((clouds(100, seed=1)[0], clouds(50, seed=2)[0] + np.float32(2.5)))
    scores = ranks.scores(tested)
    distances = np.stack([own_distances(statistics.gaussians, index, tested) for index in range(2)], 1)
    for percent in (20, 50, 80, 97.5):
        # "higher" takes a distance that occurs, so that no image lies between two ways to interpolate.
        thresholds = [
            np.percentile(
                own_distances(statistics.gaussians, index, features[labels == index]), percent, method="higher"
            )
            for index in range(2)
        ]
        beyond = (distances > thresholds).all(1)
        share = min(
            (own_distances(statistics.gaussians, i, features[labels == i]) <= thresholds[i]).mean() for i in range(2)
        )
        np.testing.assert_array_equal(scores >= np.float32(share), beyond)


def test_ranks_and_ratios_differ_only_beyond_the_largest_distance() -> None:
    features, labels = clouds(200)
    statistics = fit_classes(features, labels, ("a", "b"))
    far = features[:50] + np.linspace(20, 60, 50, dtype=np.float32)[:, None]
    ranks = Ranks(statistics, features, labels).scores(far)
    np.testing.assert_array_equal(ranks, np.ones(50, np.float32))
    assert len(np.unique(class_scores(statistics.gaussians, statistics.thresholds, far))) == 50
