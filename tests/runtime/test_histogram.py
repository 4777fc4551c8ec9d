import numpy as np
import pytest

from flawline.runtime.histogram import Histogram


@pytest.mark.parametrize("scale_ns", [2e3, 5e6, 3e9])
def test_percentiles_are_within_one_percent_above_the_exact_ones(scale_ns):
    times = np.random.default_rng(0).gamma(3, scale_ns, 5000).astype(np.int64) + 1000
    histogram = Histogram()
    for time_ns in times.tolist():
        histogram.add(time_ns)
    found = histogram.percentiles()
    exact = np.percentile(times, [50, 90, 99], method="inverted_cdf") / 1e6
    for value, true in zip((found.p50, found.p90, found.p99), exact, strict=True):
        assert true * (1 - 1e-9) <= value <= true * 1.0101
    assert found.max == times.max() / 1e6


def test_one_time_is_all_its_percentiles():
    histogram = Histogram()
    histogram.add(7_000_000)
    found = histogram.percentiles()
    assert (found.p50, found.p90, found.p99, found.max) == (7, 7, 7, 7)


def test_nothing_has_no_percentiles():
    assert Histogram().percentiles() is None


def test_times_outside_the_scale_are_counted():
    histogram = Histogram()
    for time_ns in (-5, 0, 10**30):
        histogram.add(time_ns)
    assert histogram.count == 3
    assert histogram.percentiles().max == 1e24
