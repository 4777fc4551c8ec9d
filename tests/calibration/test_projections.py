import hashlib

import numpy as np
import pytest

from flawline.calibration import projections
from flawline.runtime import InputError

RANDOM_KINDS = ["gaussian", "orthogonal", "sparse", "select"]


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_squared_norms_are_kept_in_expectation(kind):
    x = np.random.default_rng(1).standard_normal(448)
    ratios = [
        np.sum((projections.matrix(kind, input_dimension=448, dimension=32, seed=seed) @ x) ** 2) / np.sum(x**2)
        for seed in range(300)
    ]
    # 300 draws of variance at most 2 / 32: the mean is within four standard errors of 1.
    assert abs(np.mean(ratios) - 1) < 4 * np.sqrt(2 / 32 / 300)


def test_orthogonal_rows_are_orthogonal_and_equally_long():
    rows = projections.matrix("orthogonal", input_dimension=176, dimension=100, seed=3).astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(100) * 176 / 100, atol=1e-5)


def test_gaussian_entries_are_normal_with_variance_one_over_d():
    entries = projections.matrix("gaussian", input_dimension=1000, dimension=100, seed=5).ravel() * 10
    assert abs(entries.mean()) < 4 / np.sqrt(entries.size)
    assert abs(entries.var() - 1) < 4 * np.sqrt(2 / entries.size)
    assert abs(np.mean(entries**4) - 3) < 4 * np.sqrt(96 / entries.size)


def test_sparse_signs_have_achlioptas_probabilities():
    signs = projections.stored("sparse", input_dimension=1000, dimension=100, seed=7)
    shares = [np.mean(signs == value) for value in (-1, 0, 1)]
    np.testing.assert_allclose(shares, [1 / 6, 2 / 3, 1 / 6], atol=0.006)


def test_selection_picks_distinct_channels_uniformly():
    counts = np.zeros(20)
    for seed in range(2000):
        chosen = projections.stored("select", input_dimension=20, dimension=5, seed=seed)
        assert len(set(chosen.tolist())) == 5
        assert (np.diff(chosen) > 0).all()
        counts[chosen] += 1
    np.testing.assert_allclose(counts / 2000, 0.25, atol=0.045)


def test_none_is_the_identity_and_stores_nothing():
    assert projections.stored("none", input_dimension=8, dimension=8, seed=0) is None
    np.testing.assert_array_equal(
        projections.matrix("none", input_dimension=8, dimension=8, seed=0), np.eye(8, dtype=np.float32)
    )


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("sparse", "ab2eccb73ba83556"),
        ("select", "00b63ffea455b22d"),
    ],
)
def test_signs_and_selections_regenerate_exactly(kind, digest):
    drawn = projections.stored(kind, input_dimension=448, dimension=100, seed=42)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        (
            "gaussian",
            [0.02345499, 0.05842987, -0.04201588, 0.03276819],
            [-0.00504422, 0.10039192, 0.01885859, -0.00864650],
        ),
        (
            "orthogonal",
            [0.02258802, 0.05627013, -0.04046284, 0.03155698],
            [-0.06352075, 0.17369996, 0.01442035, -0.00993277],
        ),
    ],
)
def test_real_valued_projections_regenerate_to_rounding(kind, first, last):
    drawn = projections.stored(kind, input_dimension=448, dimension=100, seed=42)
    np.testing.assert_allclose(drawn[0, :4], first, atol=1e-6)
    np.testing.assert_allclose(drawn[-1, -4:], last, atol=1e-6)


def test_seeds_give_different_projections():
    first, second = (projections.matrix("gaussian", input_dimension=64, dimension=8, seed=seed) for seed in (0, 1))
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("dimension", [0, -1, 449])
@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_dimension_outside_the_feature_depth_is_refused(kind, dimension):
    with pytest.raises(InputError, match="448 channels"):
        projections.stored(kind, input_dimension=448, dimension=dimension, seed=0)


def test_none_with_another_dimension_is_refused():
    with pytest.raises(InputError, match="keeps all 448"):
        projections.stored("none", input_dimension=448, dimension=100, seed=0)


def test_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed is -1"):
        projections.stored("gaussian", input_dimension=8, dimension=4, seed=-1)
