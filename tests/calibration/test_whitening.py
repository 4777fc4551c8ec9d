import numpy as np
import pytest

from flawline.calibration.whitening import invert_lower, packed_factors, regularisation, whitening
from flawline.runtime import InputError
from flawline.runtime.kernels import unpack


def covariances(count=6, dimension=12, scale=1.0):
    factor = np.random.default_rng(2).standard_normal((count, dimension, dimension + 4)) * scale
    return factor @ factor.transpose(0, 2, 1)


def test_whitening_gives_the_mahalanobis_distance():
    covariance = covariances()
    x = np.random.default_rng(3).standard_normal((6, 12))
    lower = whitening(covariance, 0.1)
    expected = np.einsum("gi,gij,gj->g", x, np.linalg.inv(covariance + 0.1 * np.eye(12)), x)
    np.testing.assert_allclose(np.sum(np.einsum("gij,gj->gi", lower, x) ** 2, axis=1), expected, rtol=1e-10)
    np.testing.assert_array_equal(lower, np.tril(lower))


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1.0, 1e5])
def test_packed_factors_survive_fp16_at_any_scale_of_the_features(scale):
    covariance = covariances(scale=scale)
    added = regularisation(covariance, 0.01, relative=True)
    factors, scales, row_scales, rank = packed_factors(covariance, added, np.float16)
    restored = unpack(factors, 12).astype(np.float64) * scales[:, None, None]
    exact = whitening(covariance, added)
    assert row_scales is None
    assert rank is None
    assert np.isfinite(restored).all()
    assert (np.log2(scales) % 1 == 0).all()
    np.testing.assert_allclose(restored, exact, atol=2**-11 * np.abs(exact).max(), rtol=2**-11)


def test_relative_epsilon_follows_the_scale_of_the_features():
    small, large = (regularisation(covariances(scale=scale), 0.01, relative=True) for scale in (1.0, 10.0))
    assert large == pytest.approx(100 * small)
    assert regularisation(covariances(), 0.01, relative=False) == 0.01


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_epsilon_that_is_not_a_positive_number_is_refused(epsilon):
    with pytest.raises(InputError, match="positive number"):
        regularisation(covariances(), epsilon, relative=True)


def test_features_that_do_not_vary_are_refused():
    with pytest.raises(InputError, match="do not vary"):
        regularisation(np.zeros((2, 3, 3)), 0.01, relative=True)


def test_a_covariance_that_stays_singular_is_refused():
    with pytest.raises(InputError, match="singular"):
        whitening(np.array([[[1.0, 0.0], [0.0, -1.0]]]), 0.5)


@pytest.mark.parametrize("dimension", [1, 15, 16, 17, 33, 100])
def test_triangular_inverses_equal_the_general_ones(dimension):
    lower = np.linalg.cholesky(covariances(3, dimension) + 0.1 * np.eye(dimension))
    inverse = invert_lower(lower)
    np.testing.assert_array_equal(inverse, np.tril(inverse))
    np.testing.assert_allclose(inverse @ lower, np.broadcast_to(np.eye(dimension), lower.shape), atol=1e-9)
