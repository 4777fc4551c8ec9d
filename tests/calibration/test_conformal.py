import numpy as np
import pytest

from flawline.calibration.conformal import images_needed, threshold
from flawline.runtime import InputError


@pytest.mark.parametrize(("rate", "needed"), [(0.5, 1), (0.25, 3), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999)])
def test_a_rate_needs_one_over_rate_minus_one_images(rate, needed):
    assert images_needed(rate) == needed
    scores = np.arange(needed, dtype=np.float32)
    assert threshold(scores, rate) == needed - 1
    if needed > 1:
        with pytest.raises(InputError, match=rf"smallest rate that {needed - 1} support is {1 / needed:.4g}"):
            threshold(scores[1:], rate)


def test_the_threshold_is_the_conformal_quantile():
    scores = np.random.default_rng(0).permutation(100).astype(np.float32)
    # ceil(101 * 0.9) = 91st smallest of 0..99.
    assert threshold(scores, 0.1) == 90


@pytest.mark.parametrize("count", [19, 20, 57, 100])
def test_new_good_images_are_rejected_no_more_often_than_asked(count):
    generator = np.random.default_rng(count)
    rejected = [generator.standard_normal() > threshold(generator.standard_normal(count), 0.05) for _ in range(20_000)]
    # Exactly 0.05 or less in expectation; four standard errors of 20,000 draws.
    assert np.mean(rejected) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 20_000)
    # And the threshold is not needlessly high: the rate is above 0.05 - 1 / (n + 1).
    assert np.mean(rejected) > 0.05 - 1 / (count + 1) - 4 * np.sqrt(0.05 * 0.95 / 20_000)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0])
def test_a_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(InputError, match="between 0 and 1"):
        images_needed(rate)
