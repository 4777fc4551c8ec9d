import numpy as np
import pytest

from flawline.calibration.gaussian import Accumulator, assignment
from flawline.runtime import InputError

HEIGHT, WIDTH, DIMENSION = 3, 4, 5


def sample(count, seed=0):
    # A large common offset: what a careless one-pass formula loses in rounding.
    generator = np.random.default_rng(seed)
    return (100 + generator.standard_normal((count, HEIGHT * WIDTH, DIMENSION))).astype(np.float32)


def accumulate(tie, batches):
    accumulator = Accumulator(assignment(tie, HEIGHT, WIDTH), DIMENSION)
    for batch in batches:
        accumulator.add(batch)
    return accumulator


@pytest.mark.parametrize("tie", ["position", "column", "global"])
def test_mean_and_covariance_equal_numpy_per_gaussian(tie):
    embeddings = sample(30)
    accumulator = accumulate(tie, [embeddings[:7], embeddings[7:8], embeddings[8:]])
    assigned = assignment(tie, HEIGHT, WIDTH)
    for g in range(assigned.max() + 1):
        values = embeddings[:, assigned == g].reshape(-1, DIMENSION).astype(np.float64)
        np.testing.assert_allclose(accumulator.mean[g], values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(accumulator.covariance()[g], np.cov(values.T), rtol=1e-9, atol=1e-12)


def test_merge_of_parts_equals_the_whole():
    embeddings = sample(24)
    whole = accumulate("position", [embeddings])
    parts = [accumulate("position", [embeddings[i : i + 8]]) for i in (0, 8, 16)]
    merged = accumulate("position", [])
    for part in parts:
        merged.merge(part)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.covariance(), whole.covariance(), rtol=1e-9, atol=1e-12)


def test_assignments_follow_the_tie():
    np.testing.assert_array_equal(assignment("position", 2, 3), [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(assignment("column", 2, 3), [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(assignment("column", 2, 3, np.array([0, 0, 1], np.int32)), [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(assignment("global", 2, 3), [0] * 6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    embeddings = sample(4)
    embeddings[2, 5, 1] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        accumulate("position", [embeddings])


def test_one_image_is_too_few_for_a_covariance():
    with pytest.raises(InputError, match="at least 2"):
        accumulate("position", [sample(1)]).covariance()


def test_accumulators_of_different_shapes_do_not_merge():
    with pytest.raises(InputError, match="cannot merge"):
        accumulate("position", []).merge(accumulate("global", []))
