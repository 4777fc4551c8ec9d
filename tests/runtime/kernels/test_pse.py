import cv2
import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.pse import proximally_sensitive_error, proximity_taps


def random_pair(rng, *shape):
    return rng.random(shape, np.float32), rng.random(shape, np.float32)


@pytest.mark.parametrize("sigma", [0.4, 0.5, 1.3, 2.0, 4.0])
def test_raw_taps_are_equation_4_at_integers_within_two_sigma(sigma):
    taps = proximity_taps(sigma, normalised=False).astype(np.float64)
    radius = len(taps) // 2
    assert radius <= 2 * sigma < radius + 1
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    kernel = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    np.testing.assert_allclose(np.outer(taps, taps), kernel, rtol=1e-6)
    np.testing.assert_allclose(proximity_taps(sigma), taps / taps.sum(), rtol=1e-6)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (17, 12)])
@pytest.mark.parametrize("sigma", [0.5, 1.3, 4.0])
def test_error_is_the_squared_convolution_of_the_residual_with_nothing_outside(sigma, size, normalised, rng):
    image, reconstruction = random_pair(rng, 2, 1, *size)
    taps = proximity_taps(sigma, normalised=normalised).astype(np.float64)
    residual = image.astype(np.float64) - reconstruction
    expected = [
        cv2.filter2D(each[0], cv2.CV_64F, np.outer(taps, taps), borderType=cv2.BORDER_CONSTANT) ** 2
        for each in residual
    ]
    error = proximally_sensitive_error(image, reconstruction, sigma, normalised=normalised)
    np.testing.assert_allclose(error.map, expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(error.maximum, error.map.max((1, 2)))
    np.testing.assert_allclose(error.mean, np.mean(expected, (1, 2)), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_at_sigma_0_its_mean_is_the_mean_squared_error(channels, rng):
    image, reconstruction = random_pair(rng, 2, channels, 9, 12)
    error = proximally_sensitive_error(image, reconstruction, 0)
    squares = (image.astype(np.float64) - reconstruction) ** 2
    np.testing.assert_allclose(error.map, squares.mean(1), rtol=1e-6)
    np.testing.assert_allclose(error.mean, squares.mean((1, 2, 3)), rtol=1e-6)


def test_errors_that_lie_together_count_more_than_the_same_ones_apart():
    image = np.zeros((2, 1, 32, 32), np.float32)
    image[0, 0, 12:16, 12:16] = 1
    image[1, 0, 2::8, 2::8] = 1
    squared, proximal = (proximally_sensitive_error(image, np.zeros_like(image), sigma) for sigma in (0, 2))
    assert squared.mean[0] == squared.mean[1]
    assert proximal.mean[0] > 2 * proximal.mean[1]
    assert proximal.maximum[0] > 2 * proximal.maximum[1]


def test_bytes_are_the_same_numbers(rng):
    image = rng.integers(0, 256, (2, 3, 9, 7), dtype=np.uint8)
    reconstruction = rng.uniform(0, 255, image.shape).astype(np.float32)
    of_bytes = proximally_sensitive_error(image, reconstruction, 1.5)
    of_floats = proximally_sensitive_error(image.astype(np.float32), reconstruction, 1.5)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(of_bytes, of_floats, strict=True))


IMAGE = np.zeros((1, 1, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("image", "reconstruction", "sigma", "message"),
    [
        (IMAGE[0], IMAGE[0], 1, r"image: received float32 \(1, 4, 4\), expected uint8 or float32 \(B, channels"),
        (IMAGE.astype(np.float64), IMAGE, 1, "image: received float64"),
        (IMAGE[:0], IMAGE[:0], 1, r"image: received float32 \(0, 1, 4, 4\)"),
        (IMAGE, IMAGE[..., :3], 1, r"reconstruction: received float32 \(1, 1, 4, 3\), expected float32 \(1, 1, 4, 4\)"),
        (IMAGE, IMAGE.astype(np.uint8), 1, "reconstruction: received uint8"),
        (IMAGE, IMAGE, -1, "sigma: received -1, expected a finite number of pixels of at least 0"),
        (IMAGE, IMAGE, np.nan, "sigma: received nan"),
    ],
)
def test_what_is_no_pair_of_images_is_refused(image, reconstruction, sigma, message):
    with pytest.raises(InputError, match=message):
        proximally_sensitive_error(image, reconstruction, sigma)
