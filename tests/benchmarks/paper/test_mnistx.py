import numpy as np
import pytest

from flawline.benchmarks.paper.mnistx import mnistx
from flawline.runtime.errors import InputError


def test_digits_lie_in_the_middle_of_black():
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    images = mnistx(digits, 0.0, seed=0)
    np.testing.assert_array_equal(images[:, 28:56, 28:56], digits)
    images[:, 28:56, 28:56] = 0
    assert images.shape == (3, 84, 84)
    assert not images.any()


def test_so_many_pixels_are_black_or_white_each_way():
    grey = np.full((40, 28, 28), 100, np.uint8)
    middle = mnistx(grey, 0.2, seed=1)[:, 28:56, 28:56]
    assert set(np.unique(middle)) == {0, 100, 255}
    for value in (0, 255):
        assert (middle == value).mean() == pytest.approx(0.1, abs=0.01)


def test_noise_of_an_image_does_not_depend_on_those_behind_it():
    digits = np.zeros((1500, 28, 28), np.uint8)
    images = mnistx(digits, 0.1, seed=2)
    np.testing.assert_array_equal(mnistx(digits[:20], 0.1, seed=2), images[:20])
    assert (images[0] != images[1]).any()
    assert (images != mnistx(digits, 0.1, seed=3)).any()


@pytest.mark.parametrize("noise", [-0.1, 1.5, float("nan")])
def test_noise_that_is_no_share_is_refused(noise):
    with pytest.raises(InputError, match="expected a share"):
        mnistx(np.zeros((1, 28, 28), np.uint8), noise, seed=0)


def test_digits_of_another_size_are_refused():
    with pytest.raises(InputError, match="expected uint8"):
        mnistx(np.zeros((2, 84, 84), np.uint8), 0.1, seed=0)
