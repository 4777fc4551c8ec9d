import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf, oas, shrunk_covariance

from flawline.calibration.mixture import Mixture, draw_embeddings, fit_mixtures
from flawline.calibration.shrinkage import shrink, shrink_each
from flawline.calibration.statistics import StatisticsOptions
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
    before = one_gaussian_per_position(embeddings)
    after = Mixture(before.mean, before.covariance.copy())
    shrink_each(after, name, embeddings, np.arange(4, dtype=np.int32), seed=0)
    shares = [estimate(embeddings[:, p].astype(np.float64))[1] for p in range(4)]
    assert len(set(shares)) == 4
    for p, share in enumerate(shares):
        np.testing.assert_allclose(after.covariance[p, 0], shrunk_covariance(before.covariance[p, 0], share))


def test_a_given_share_draws_towards_the_identity():
    covariance = one_gaussian_per_position(two_clouds()).covariance
    expected = shrunk_covariance(covariance, 0.3)
    shrink(covariance, 0.3)
    np.testing.assert_allclose(covariance, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shrinkage": -0.1}, "expected 0 to 1"),
        ({"shrinkage": 1.1}, "expected 0 to 1"),
        ({"shrinkage": "magic"}, "expected oas"),
        ({"shrinkage": "oas", "components": 2}, "is for one component"),
        ({"components": 0}, "0 components"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_any_work(options, message):
    with pytest.raises(InputError, match=message):
        StatisticsOptions(**options)


def test_whole_numbers_are_shares_too():
    assert StatisticsOptions(shrinkage=1).shrinkage == 1


def test_a_large_sample_is_drawn_from_all_images_and_positions():
    embeddings = np.arange(300 * 200, dtype=np.float32).reshape(300, 200, 1)
    drawn = draw_embeddings(embeddings, np.arange(50, 150), np.random.default_rng(0))
    assert drawn.shape == (20_000, 1)
    assert len(np.unique(drawn)) == 20_000
    assert ((drawn % 200 >= 50) & (drawn % 200 < 150)).all()
    assert drawn.max() > 290 * 200
