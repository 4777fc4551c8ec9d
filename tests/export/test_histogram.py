"""Histograms that grow, and ranges of least error."""

import numpy as np
import numpy.typing as npt
import pytest

from flawline.export.histogram import Histogram


def histogram(*parts: npt.NDArray[np.float32]) -> Histogram:
    result = Histogram()
    for part in parts:
        result.add(part)
    return result


def rounding_error(values: npt.NDArray[np.float32], low: float, high: float) -> float:
    step = (high - low) / 255
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.square(rounded - values).mean())


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_order_of_frames_does_not_matter(symmetric: bool) -> None:
    generator = np.random.default_rng(0)
    parts = [(generator.standard_normal(1000) * scale).astype(np.float32) for scale in (0, 1e-3, 1, 70, 1e4)]
    ranges = {
        histogram(*order).best_range(symmetric=symmetric) for order in (parts, parts[::-1], parts[1:] + parts[:1])
    }
    assert len(ranges) == 1


def test_zeros_first_leave_small_values_their_precision() -> None:
    values = np.linspace(-1e-4, 3e-4, 10_000, dtype=np.float32)
    zeros = np.zeros_like(values)
    assert histogram(zeros, values).best_range(symmetric=False) == histogram(values, zeros).best_range(symmetric=False)


def test_a_few_outliers_do_not_cost_all_others_their_precision() -> None:
    values = np.abs(np.random.default_rng(1).standard_normal(1_000_000)).astype(np.float32)
    values[:2] = 100
    low, high = histogram(values).best_range(symmetric=False)
    assert low == 0
    assert high < 80
    tried = [rounding_error(values, 0, bound) for bound in np.linspace(5, 100, 96)]
    assert rounding_error(values, low, high) < 1.02 * min(tried) < 0.7 * tried[-1]


@pytest.mark.parametrize("symmetric", [True, False])
def test_evenly_spread_values_keep_their_whole_range(symmetric: bool) -> None:
    values = np.linspace(-1, 3, 100_000, dtype=np.float32)
    low, high = histogram(values).best_range(symmetric=symmetric)
    assert high == pytest.approx(3, rel=0.02)
    assert low == pytest.approx(-high if symmetric else -1, rel=0.02)


def test_zero_stays_in_the_range() -> None:
    low, high = histogram(np.linspace(5, 6, 1000, dtype=np.float32)).best_range(symmetric=False)
    assert (low, high) == (0, pytest.approx(6, rel=0.02))
    assert histogram(np.zeros(10, np.float32)).best_range(symmetric=False) == (0, 0)


@pytest.mark.parametrize("peak", [1.0, 2.0, np.nextafter(np.float32(2), np.float32(0)), 3e38, 1e-30, 1e-40])
def test_magnitudes_at_powers_of_two_are_counted(peak: float) -> None:
    low, high = histogram(np.array([-peak, peak], np.float32)).best_range(symmetric=True)
    assert high == pytest.approx(peak, rel=0.02)
    assert low == -high
