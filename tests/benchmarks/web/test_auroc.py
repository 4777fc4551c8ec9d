"""AUROC from counts of wins against scikit-learn's, and the bootstrap."""

import numpy as np
import pytest

from flawline.benchmarks.web.auroc import estimate, wins
from flawline.runtime.errors import InputError

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def tiles_of(strips: int, generator: np.random.Generator, shift: float = 1.0):
    """Scores with ties, and labels, of strips of 1 to 12 tiles."""
    bad = [generator.random(int(generator.integers(1, 13))) < 0.3 for _ in range(strips)]
    scores = [np.round(generator.normal(size=one.size) + shift * one, 1) for one in bad]
    return scores, bad


def test_equals_scikit_learn_with_any_strips_drawn():
    generator = np.random.default_rng(0)
    scores, bad = tiles_of(9, generator)
    counted = wins(scores, bad)
    weights = generator.multinomial(9, np.full(9, 1 / 9), size=50).astype(float)
    weights[0] = 1
    for found, drawn in zip(counted.auroc(weights), weights.astype(int), strict=True):
        labels = np.concatenate([np.tile(one, times) for one, times in zip(bad, drawn, strict=True)])
        values = np.concatenate([np.tile(one, times) for one, times in zip(scores, drawn, strict=True)])
        np.testing.assert_allclose(found, sklearn_metrics.roc_auc_score(labels, values), rtol=1e-12)


def test_draws_without_bad_tiles_are_nan():
    counted = wins([np.array([1.0, 2.0]), np.array([3.0])], [np.array([False, False]), np.array([True])])
    assert counted.auroc(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])).tolist()[0] == 1.0
    assert np.isnan(counted.auroc(np.array([[1.0, 0.0], [0.0, 1.0]]))).all()


def test_the_interval_holds_the_mean_and_narrows_with_more_strips():
    generator = np.random.default_rng(1)
    widths = []
    for strips in (12, 200):
        seeds = [[wins(*tiles_of(strips, generator)) for _ in range(2)] for _ in range(3)]
        found = estimate(seeds, 400, 0)
        assert found.low < found.mean < found.high
        means = [np.mean([one.auroc(np.ones((1, strips)))[0] for one in folds]) for folds in seeds]
        np.testing.assert_allclose(found.seeds, means)
        np.testing.assert_allclose(found.mean, np.mean(means))
        widths.append(found.high - found.low)
    # By the root of 200 / 12, about 4, were it not for chance.
    assert 2 < widths[0] / widths[1] < 8
    assert estimate(seeds, 400, 0) == found


@pytest.mark.parametrize("bad", [True, False])
def test_tiles_of_one_kind_are_refused(bad):
    with pytest.raises(InputError, match="expected good and bad ones"):
        wins([np.array([1.0, 2.0])], [np.full(2, bad)])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    with pytest.raises(InputError, match="1 tiles score NaN or infinite"):
        wins([np.array([1.0, value])], [np.array([True, False])])
