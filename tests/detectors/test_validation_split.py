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
    largest = np.bincount(groups).max()
    assert 200 * share <= len(held_out) < 200 * share + largest


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
