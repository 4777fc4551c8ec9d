import numpy as np
import pytest

from flawline.calibration.class_statistics import (
    ClassOptions,
    class_moments,
    class_scores,
    fit_classes,
    own_distances,
)
from flawline.runtime import InputError
from flawline.runtime.kernels import mahalanobis

NAMES = ["bolt", "nut", "washer"]


def drawn(counts=(60, 80, 200), dimension=12, seed=4):
    """Features of three classes, some of them 0 for all images of a class as ReLU leaves them."""
    generator = np.random.default_rng(seed)
    features, labels = [], []
    for index, count in enumerate(counts):
        mix = generator.standard_normal((dimension, dimension)) * (0.1 + index)
        own = generator.standard_normal((count, dimension)) @ mix + 5 * generator.standard_normal(dimension)
        own[:, index] = 0
        features.append(own)
        labels += [index] * count
    return np.concatenate(features).astype(np.float32), np.array(labels)


def textbook(features, labels, index, added):
    """The distance to a class by its inverse covariance, float64."""
    mean, covariance = class_moments(features[labels == index], ClassOptions())
    inverse = np.linalg.inv(covariance + added * np.eye(len(mean)))
    z = features.astype(np.float64) - mean
    return np.sqrt(np.einsum("ni,ij,nj->n", z, inverse, z))


@pytest.mark.parametrize(("factors", "tolerance"), [("fp32", 2e-5), ("fp16", 2e-3), ("int8", 5e-2)])
def test_distances_are_those_by_the_inverse_covariances(factors, tolerance):
    features, labels = drawn()
    found = fit_classes(features, labels, NAMES, ClassOptions(factors=factors))
    distances = mahalanobis(features[:, None], found.gaussians)
    for index in range(3):
        expected = textbook(features, labels, index, found.added)
        np.testing.assert_allclose(distances[:, index], expected, rtol=tolerance, atol=tolerance * expected.mean())
        own = features[labels == index]
        np.testing.assert_array_equal(own_distances(found.gaussians, index, own), distances[labels == index, index])


def test_epsilon_is_a_share_of_the_mean_variance_of_all_classes():
    features, labels = drawn()
    variance = np.mean([features[labels == i].astype(np.float64).var(axis=0, ddof=1).mean() for i in range(3)])
    assert fit_classes(features, labels, NAMES, ClassOptions(epsilon=0.1)).added == pytest.approx(0.1 * variance)
    absolute = ClassOptions(epsilon=0.1, epsilon_relative=False)
    assert fit_classes(features, labels, NAMES, absolute).added == 0.1


def test_scores_do_not_depend_on_the_scale_of_the_features():
    features, labels = drawn()
    scores = [
        class_scores(found.gaussians, found.thresholds, scaled)
        for scaled in (features, features * np.float32(1e-3))
        for found in [fit_classes(scaled, labels, NAMES, ClassOptions(factors="fp32"))]
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)


@pytest.mark.parametrize("percentile", [50.0, 97.5])
def test_as_many_images_of_each_class_lie_beyond_its_threshold_as_the_percentile_says(percentile):
    features, labels = drawn()
    found = fit_classes(features, labels, NAMES, ClassOptions(percentile=percentile))
    for index, count in enumerate((60, 80, 200)):
        own = own_distances(found.gaussians, index, features[labels == index])
        beyond = np.count_nonzero(own > found.thresholds[index])
        assert abs(beyond - count * (1 - percentile / 100)) < 1


def test_an_image_scores_above_1_where_it_is_beyond_every_class():
    features, labels = drawn()
    found = fit_classes(features, labels, NAMES)
    strange = np.concatenate([features, features[::-1] * np.float32(1.5) + np.float32(0.5)])
    distances = mahalanobis(strange[:, None], found.gaussians)
    beyond = (distances > found.thresholds).all(axis=1)
    assert 0 < np.count_nonzero(beyond) < len(strange)
    np.testing.assert_array_equal(class_scores(found.gaussians, found.thresholds, strange) > 1, beyond)


def test_classes_of_few_images_are_shrunk_and_counted():
    features, labels = drawn(counts=(60, 8, 23), dimension=12)
    found = fit_classes(features, labels, NAMES, ClassOptions(factors="fp32", epsilon=1e-6))
    assert found.small == 2
    got = mahalanobis(features[:, None], found.gaussians)
    for index in range(3):
        expected = textbook(features, labels, index, found.added)
        np.testing.assert_allclose(got[:, index], expected, rtol=1e-2)
    # Without shrinkage eight images would leave directions in which epsilon alone decides.
    own = features[labels == 1].astype(np.float64)
    inverse = np.linalg.inv(np.cov(own.T) + found.added * np.eye(12))
    z = features[labels != 1] - own.mean(axis=0)
    assert np.median(np.sqrt(np.einsum("ni,ij,nj->n", z, inverse, z))) > 100 * np.median(got[labels != 1, 1])


def test_one_image_more_than_features_is_no_cliff():
    generator, dimension = np.random.default_rng(1), 40
    mix = generator.standard_normal((dimension, dimension)) / np.sqrt(dimension) * np.geomspace(1, 0.05, dimension)
    beyond = []
    for count in (dimension, dimension + 1, 2 * dimension, 50 * dimension):
        own = generator.standard_normal((2 * count + 1000, dimension)) @ mix
        own[count : 2 * count] += 3
        features, fresh = own[: 2 * count].astype(np.float32), own[2 * count :].astype(np.float32)
        found = fit_classes(features, np.repeat([0, 1], count), NAMES[:2])
        beyond.append(np.mean(class_scores(found.gaussians, found.thresholds, fresh) > 1))
    assert beyond == sorted(beyond, reverse=True)
    assert beyond[0] - beyond[1] < 0.1
    assert beyond[-1] < 0.05


def test_many_images_are_hardly_shrunk():
    own = np.random.default_rng(2).standard_normal((20000, 12)) * np.geomspace(1, 5, 12)
    mean, covariance = class_moments(own, ClassOptions())
    np.testing.assert_array_equal(mean, own.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(own.T), rtol=1e-2, atol=1e-4 * 25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda features, labels: (features, np.zeros_like(labels), NAMES[:1]), "1 class .bolt.; expected at least 2"),
        (lambda features, labels: (features[59:], labels[59:], NAMES), "class 'bolt' has 1 image; a covariance needs"),
        (lambda features, labels: (features[60:], labels[60:], NAMES), "class 'bolt' has 0 images"),
        (lambda features, labels: (features, labels + 1, NAMES), "labels from 1 to 3; expected 0 to 2"),
        (lambda features, labels: (features * np.float32("nan"), labels, NAMES), "NaN or infinite features"),
        (lambda features, labels: (features * 0, labels, NAMES), "do not vary"),
        (
            lambda features, labels: (np.where(labels[:, None] == 1, np.float32(2), features), labels, NAMES),
            "the images of class 'nut' have the same features",
        ),
        (
            lambda features, labels: (features * np.float32(1e20), labels, NAMES),
            r"the features of class 'bolt' reach .*e\+2.; expected numbers whose squares neither overflow",
        ),
        (lambda features, labels: (features * np.float32(1e18), labels, NAMES), "squares neither overflow"),
        (lambda features, labels: (features * np.float32(1e-25), labels, NAMES), r"reach .*e-2.; expected .*underflow"),
    ],
)
def test_features_and_labels_that_say_nothing_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        fit_classes(*change(*drawn()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 100.0}, "percentile is 100"),
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"shrinkage": "x"}, "shrinkage 'x'"),
    ],
)
def test_options_that_say_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ClassOptions(**options)
