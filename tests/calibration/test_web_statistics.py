"""Statistics of good web, of random vectors."""

import numpy as np
import pytest

from flawline.calibration.statistics import StatisticsOptions
from flawline.calibration.web_statistics import Moments, _by_group, _Sample, nearest_seen, require_for_web
from flawline.runtime.errors import InputError


def vectors(count, dimension=5, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (count, dimension)).astype(np.float32)


def test_moments_are_those_of_all_vectors_whatever_the_parts():
    values, groups = vectors(500), np.random.default_rng(1).integers(0, 3, 500)
    moments = Moments(3, 5)
    for start in range(0, 500, 37):
        part = slice(start, start + 37)
        for group, own in _by_group(values[part], groups[part]):
            moments.add(group, own)
    covariance = moments.covariance(np.array([2, 0]))
    for group in range(3):
        own = values[groups == group].astype(np.float64)
        assert moments.count[group] == len(own)
        np.testing.assert_allclose(moments.mean[group], own.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance[0], np.cov(values[groups == 2].astype(np.float64).T), rtol=1e-10)
    np.testing.assert_allclose(covariance[1], np.cov(values[groups == 0].astype(np.float64).T), rtol=1e-10)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_is_refused(wrong):
    values = vectors(10)
    values[4, 2] = wrong
    with pytest.raises(InputError, match="NaN or infinite features"):
        Moments(1, 5).add(0, values)


def test_one_position_has_no_covariance():
    moments = Moments(1, 5)
    moments.add(0, vectors(1))
    with pytest.raises(InputError, match="1 positions of the map show good web; expected 2 or more"):
        moments.covariance(np.array([0]))


@pytest.mark.parametrize(
    ("count", "lenders"),
    [
        ([100, 100, 100], [0, 1, 2]),
        ([0, 0, 100, 90, 0, 100, 0], [2, 2, 2, 3, 3, 5, 5]),
        # A wandering edge: too few of its own.
        ([0, 3, 100, 100, 9, 0], [2, 2, 2, 3, 3, 3]),
        ([0, 10, 100], [1, 1, 2]),
        ([1], [0]),
        ([0, 0], [0, 1]),
        ([2, 0, 1], [0, 0, 0]),
    ],
)
def test_columns_seldom_seen_take_the_statistics_of_their_nearest(count, lenders):
    np.testing.assert_array_equal(nearest_seen(np.array(count), np.ones(len(count), int)), lenders)


def test_a_narrow_lane_keeps_its_own_statistics_and_one_hardly_seen_does_not():
    count = np.array([2000, 100, 0, 150])
    np.testing.assert_array_equal(nearest_seen(count, np.array([20, 1, 1, 20])), [0, 1, 1, 1])


def test_a_sample_is_bounded_and_of_vectors_that_were_given():
    values = [vectors(3000, seed=seed) for seed in range(20)]
    sample = _Sample(2, 5, windows=20, seed=7)
    for part in values:
        sample.add(1, part)
    sample.add(0, values[0][:4])
    few, many = sample.values(np.array([0, 1]))
    np.testing.assert_array_equal(few, values[0][:4].astype(np.float64))
    assert many.shape == (20_000, 5)
    given = {tuple(row) for row in np.concatenate(values).astype(np.float64)}
    assert all(tuple(row) in given for row in many)
    assert len({tuple(row) for row in many}) == len(many)


def test_a_group_never_seen_is_an_empty_sample():
    (none,) = _Sample(1, 5, windows=1, seed=0).values(np.array([0]))
    assert none.shape == (0, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tie": "position"}, "--tie position is for aligned parts"),
        ({"tie": "global", "shrinkage": "oas"}, "--shrinkage oas is for pictures"),
        ({"tie": "global", "lane_px": 8}, "lanes of 8 px with the tie global; expected column"),
    ],
)
def test_models_of_pictures_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        require_for_web(StatisticsOptions(**options))
