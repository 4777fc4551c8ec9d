import numpy as np
import pytest

from flawline.benchmarks.paper.map_agreement import (
    agreement,
    agreement_frequencies,
    largest_pixels,
    scaled_by_maximum,
)
from flawline.runtime.errors import InputError

# 3 x 4: the two largest of the first are (0, 0) and (2, 3), of the second (0, 1) and (2, 3).
FIRST = np.array([[[8, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 4]]], np.float32)
SECOND = np.array([[[0, 5, 0, 0], [0, 1, 0, 0], [2, 0, 0, 10]]], np.float32)


def test_maps_are_divided_by_their_own_maximum():
    both = np.concatenate((FIRST, SECOND))
    scaled = scaled_by_maximum(both)
    np.testing.assert_array_equal(scaled[0, 0], [1, 0.125, 0, 0])
    np.testing.assert_array_equal(scaled[1, 2], [0.2, 0, 0, 1])


def test_a_map_of_zeros_stays_one():
    assert not scaled_by_maximum(np.zeros((1, 2, 2))).any()


def test_the_largest_pixels_come_in_order_and_equals_row_by_row():
    np.testing.assert_array_equal(largest_pixels(FIRST, 3), [[[0, 0], [2, 3], [1, 1]]])
    np.testing.assert_array_equal(largest_pixels(np.ones((1, 2, 2)), 3), [[[0, 0], [0, 1], [1, 0]]])


def test_agreement_distance_and_difference_by_hand():
    got = agreement(FIRST, SECOND, 2)
    np.testing.assert_array_equal(got.shared, [1])
    np.testing.assert_array_equal(got.distance_px, [1.0])
    # Scaled: 1, 1/8 | 1/4 | 1/2 against 1/2 | 1/10 | 1/5, 1: differences 1, -3/8, 3/20, -1/5, -1/2.
    expected = (1 + (3 / 8) ** 2 + (3 / 20) ** 2 + (1 / 5) ** 2 + (1 / 2) ** 2) / 12
    np.testing.assert_allclose(got.squared_difference, [expected], rtol=1e-12)


def test_the_distance_is_from_the_reference_to_the_other_and_the_largest_of_them():
    reference = np.zeros((1, 5, 8))
    reference[0, 0, 0], reference[0, 4, 7] = 1, 1
    other = np.zeros((1, 5, 8))
    other[0, 0, 0], other[0, 1, 3] = 1, 1
    # (4, 7) is 5 px from (1, 3); the other way, (1, 3) is sqrt(10) px from (0, 0).
    np.testing.assert_array_equal(agreement(reference, other, 2).distance_px, [5.0])
    np.testing.assert_allclose(agreement(other, reference, 2).distance_px, [np.sqrt(10)])


def test_order_preserving_changes_leave_agreement_and_distance_as_they_are():
    generator = np.random.default_rng(0)
    reference, other = generator.random((2, 6, 9, 11))
    before, after = agreement(reference, other, 10), agreement(reference**2 * 7, np.sqrt(other), 10)
    np.testing.assert_array_equal(before.shared, after.shared)
    np.testing.assert_array_equal(before.distance_px, after.distance_px)
    assert not np.allclose(before.squared_difference, after.squared_difference)


def test_a_map_agrees_with_itself():
    maps = np.random.default_rng(1).random((3, 6, 5))
    got = agreement(maps, maps, 7)
    np.testing.assert_array_equal(got.shared, 7)
    assert not got.distance_px.any()
    assert not got.squared_difference.any()


def test_many_images_are_those_one_by_one():
    reference, other = np.random.default_rng(2).random((2, 5, 7, 6))
    together = agreement(reference, other, 5)
    for index in range(5):
        alone = agreement(reference[[index]], other[[index]], 5)
        for one, all_ in zip(alone, together, strict=True):
            assert one[0] == all_[index]


def test_frequencies_by_hand():
    np.testing.assert_array_equal(agreement_frequencies(np.array([0, 2, 2, 1]), 3), [0.25, 0.25, 0.5, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_maps_that_are_none_are_refused(value):
    broken = FIRST.copy()
    broken[0, 1, 1] = value
    with pytest.raises(InputError, match="expected finite ones of at least 0"):
        agreement(broken, SECOND, 2)


def test_shapes_and_numbers_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match="expected the same"):
        agreement(FIRST, SECOND[:, :2], 2)
    with pytest.raises(InputError, match=r"expected \(B, height, width\)"):
        scaled_by_maximum(FIRST[0])
    for count in (0, 13):
        with pytest.raises(InputError, match="expected 1 to 12"):
            agreement(FIRST, SECOND, count)
    with pytest.raises(InputError, match="expected numbers from 0 to 3"):
        agreement_frequencies(np.array([4]), 3)
