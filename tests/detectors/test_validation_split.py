"""The images that stop a training are of no part that it learns from."""

import numpy as np
import pytest

from flawline.detectors.validation_split import validation_split
from flawline.runtime.errors import InputError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_group_is_on_one_side(seed: int, share: float) -> None:
    groups = generator(seed).integers(0, 40, 200)
    fitted, held_out = validation_split(200, share, groups, generator(seed))
    assert not set(groups[fitted]) & set(groups[held_out])
    np.testing.assert_array_equal(np.sort(np.concatenate((fitted, held_out))), np.arange(200))
    # A group that comes less near is passed over, and one that comes nearer from beyond is the last.
    assert abs(len(held_out) - 200 * share) <= np.bincount(groups).max() / 2


@pytest.mark.parametrize("seed", range(30))
def test_a_group_that_would_overshoot_by_far_is_passed_over(seed: int) -> None:
    groups = np.repeat(np.arange(11), [900, *[10] * 10])
    fitted, held_out = validation_split(1000, 0.1, groups, generator(seed))
    np.testing.assert_array_equal(fitted, np.arange(900))
    np.testing.assert_array_equal(held_out, np.arange(900, 1000))


@pytest.mark.parametrize("seed", range(5))
def test_where_every_group_overshoots_the_smallest_is_held_out(seed: int) -> None:
    groups = np.repeat(np.arange(3), [30, 25, 45])
    fitted, held_out = validation_split(100, 0.1, groups, generator(seed))
    np.testing.assert_array_equal(held_out, np.arange(30, 55))
    assert len(fitted) == 75


@pytest.mark.parametrize("seed", range(5))
def test_fewer_are_held_out_rather_than_far_more(seed: int) -> None:
    groups = np.repeat(np.arange(2), [22, 1])
    _, held_out = validation_split(23, 0.1, groups, generator(seed))
    np.testing.assert_array_equal(held_out, [22])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [(6, 2, 2), (1, 9), (7, 1, 1, 1), (5, 5)], ids=str)
def test_no_more_than_half_are_held_out(seed: int, sizes: tuple[int, ...]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    _, held_out = validation_split(10, 0.4, groups, generator(seed))
    assert 1 <= len(held_out) <= 5


def test_more_than_half_are_held_out_where_that_is_the_share() -> None:
    fitted, held_out = validation_split(10, 0.8, np.repeat(np.arange(5), 2), generator())
    assert (len(fitted), len(held_out)) == (2, 8)


def test_without_groups_it_is_the_first_of_a_permutation() -> None:
    fitted, held_out = validation_split(50, 0.2, None, generator(3))
    shuffled = generator(3).permutation(50)
    np.testing.assert_array_equal(held_out, np.sort(shuffled[:10]))
    np.testing.assert_array_equal(fitted, np.sort(shuffled[10:]))


@pytest.mark.parametrize(
    ("count", "share", "groups", "message"),
    [
        (6, 0.2, np.zeros(6, np.int64), "6 images of 1 groups, 6 of them held out for validation"),
        (4, 0.1, None, "4 images, 0 of them held out"),
        (4, 0.5, np.zeros(3, np.int64), r"groups int64 \(3,\); expected int64 \(4,\)"),
        (4, 0.5, np.zeros(4), r"groups float64 \(4,\); expected int64"),
    ],
)
def test_what_cannot_be_split_is_refused(count: int, share: float, groups: np.ndarray | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validation_split(count, share, groups, generator())
