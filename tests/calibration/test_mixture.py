import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf, oas

from flawline.calibration.mixture import Mixture, fit_mixtures
from flawline.calibration.shrinkage import shrink
from flawline.runtime import InputError


def two_clouds(count=200, positions=4, dimension=3):
    generator = np.random.default_rng(4)
    values = generator.standard_normal((count, positions, dimension))
    values[::2] += 20
    return values.astype(np.float32)


def test_a_mixture_finds_two_clouds_that_one_gaussian_blurs():
    embeddings = two_clouds()
    mixture = fit_mixtures(embeddings, np.zeros(4, np.int32), components=2, seed=0)
    centres = np.sort(mixture.mean[0].mean(axis=1))
    np.testing.assert_allclose(centres, [0, 20], atol=0.3)
    assert np.trace(mixture.covariance[0, 0]) < 6


def test_each_tied_gaussian_gets_its_own_components():
    mixture = fit_mixtures(two_clouds(), np.array([0, 1, 0, 1], np.int32), components=2, seed=0)
    assert mixture.mean.shape == (2, 2, 3)
    assert mixture.covariance.shape == (2, 2, 3, 3)


def test_too_few_embeddings_for_the_components_are_refused():
    with pytest.raises(InputError, match="do not suffice for 8 components"):
        fit_mixtures(two_clouds(3), np.arange(4, dtype=np.int32), components=8, seed=0)


def one_gaussian_per_position(embeddings):
    mean = embeddings.mean(axis=0)[:, None].astype(np.float64)
    covariance = np.stack([np.cov(embeddings[:, p].T.astype(np.float64)) for p in range(embeddings.shape[1])])
    return Mixture(mean, covariance[:, None])


@pytest.mark.parametrize(("name", "estimate"), [("oas", oas), ("ledoit-wolf", ledoit_wolf)])
def test_an_estimator_shrinks_each_position_by_its_own_share(name, estimate):
    embeddings = two_clouds(30)
    shrunk = shrink(one_gaussian_per_position(embeddings), name, embeddings, np.arange(4, dtype=np.int32))
    for p in range(4):
        np.testing.assert_allclose(shrunk.covariance[p, 0], estimate(embeddings[:, p].astype(np.float64))[0])


def test_a_given_share_draws_towards_the_identity():
    mixture = one_gaussian_per_position(two_clouds())
    shrunk = shrink(mixture, 1.0, None, np.arange(4, dtype=np.int32))
    variance = np.trace(mixture.covariance[2, 0]) / 3
    np.testing.assert_allclose(shrunk.covariance[2, 0], variance * np.eye(3), atol=1e-12 * variance)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_zero_to_one_is_refused(share):
    with pytest.raises(InputError, match="expected 0 to 1"):
        shrink(one_gaussian_per_position(two_clouds()), share, None, np.arange(4, dtype=np.int32))
