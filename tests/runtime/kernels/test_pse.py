import cv2
import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import ProximalErrorMap, implementations, proximally_sensitive_error
from flawline.runtime.kernels.pse import MOST_SIGMA_PX, proximity_taps
from tests.runtime.kernels.cases import poisoned, thinned

# Around the registers, blocks and bands of the native kernel, and beyond a tile of it.
SIZES = [(1, 1), (1, 9), (2, 31), (3, 33), (33, 7), (64, 65), (131, 257)]
SIGMAS = [0.0, 0.4, 0.5, 1.3, 2.0, 4.4, 4.5, 9.0]
DTYPES = [np.uint8, np.float32]
NATIVE = [name for name in implementations() if name != "reference"]
TOLERANCE = 1e-5


def random_pair(rng, *shape, dtype=np.float32):
    """Images, and what a poor reconstruction makes of them."""
    if dtype == np.float32:
        return rng.random(shape, np.float32), rng.random(shape, np.float32)
    image = rng.integers(0, 256, shape).astype(dtype)
    return image, (image + rng.normal(0, 30, shape)).astype(np.float32)


def assert_error(error, expected):
    # Where a sum of residuals is near 0, what rounding leaves of it counts against the error of the frame.
    np.testing.assert_allclose(error.map, expected.map, rtol=TOLERANCE, atol=TOLERANCE * expected.mean.min())
    np.testing.assert_array_equal(error.maximum, error.map.max((1, 2)))
    np.testing.assert_allclose(error.mean, expected.mean, rtol=TOLERANCE)


def of_reference(image, reconstruction, sigma, **options):
    return proximally_sensitive_error(image, reconstruction, sigma, implementation="reference", **options)


def bits(error):
    return [array.tobytes() for array in error]


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
@pytest.mark.parametrize("implementation", implementations())
def test_error_is_the_squared_convolution_of_the_residual_with_nothing_outside(
    implementation, sigma, size, normalised, rng
):
    image, reconstruction = random_pair(rng, 2, 1, *size)
    taps = proximity_taps(sigma, normalised=normalised).astype(np.float64)
    residual = image.astype(np.float64) - reconstruction
    expected = [
        cv2.filter2D(each[0], cv2.CV_64F, np.outer(taps, taps), borderType=cv2.BORDER_CONSTANT) ** 2
        for each in residual
    ]
    options = {"normalised": normalised, "implementation": implementation}
    error = proximally_sensitive_error(image, reconstruction, sigma, **options)
    np.testing.assert_allclose(error.map, expected, rtol=TOLERANCE, atol=TOLERANCE * np.mean(expected))
    np.testing.assert_array_equal(error.maximum, error.map.max((1, 2)))
    np.testing.assert_allclose(error.mean, np.mean(expected, (1, 2)), rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("implementation", "dtype", "size", "sigma", "channels", "normalised"),
    thinned(5, NATIVE, DTYPES, SIZES, SIGMAS, [1, 3], [True, False]),
)
def test_native_error_is_that_of_the_reference(implementation, dtype, size, sigma, channels, normalised, rng):
    image, reconstruction = random_pair(rng, 2, channels, *size, dtype=dtype)
    expected = of_reference(image, reconstruction, sigma, normalised=normalised)
    options = {"normalised": normalised, "implementation": implementation}
    assert_error(proximally_sensitive_error(image, reconstruction, sigma, **options), expected)


# Several tiles: of many columns, of few under a wide filter, and of many channels.
@pytest.mark.parametrize(
    ("channels", "size", "sigma"),
    [(1, (5, 5003), 2.0), (1, (131, 1203), 30.0), (70, (3, 1030), 1.0), (1, (2, 2100), 0.0)],
)
@pytest.mark.parametrize("implementation", NATIVE)
def test_images_of_several_tiles_show_no_seams(implementation, channels, size, sigma, rng):
    image, reconstruction = random_pair(rng, 1, channels, *size)
    expected = of_reference(image, reconstruction, sigma)
    assert_error(proximally_sensitive_error(image, reconstruction, sigma, implementation=implementation), expected)


@pytest.mark.parametrize("sigma", [0.0, 2.0, 12.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", NATIVE)
def test_bits_do_not_depend_on_threads_nor_on_the_batch(implementation, dtype, sigma, rng):
    image, reconstruction = random_pair(rng, 3, 2, 301, 70, dtype=dtype)
    options = {"implementation": implementation}
    alone = bits(proximally_sensitive_error(image, reconstruction, sigma, **options))
    for threads in (2, 3, 7):
        assert bits(proximally_sensitive_error(image, reconstruction, sigma, threads=threads, **options)) == alone
    frames = [
        proximally_sensitive_error(image[i : i + 1], reconstruction[i : i + 1], sigma, **options) for i in range(3)
    ]
    assert [b"".join(parts) for parts in zip(*map(bits, frames), strict=True)] == alone


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("implementation", implementations())
def test_what_is_allocated_once_gives_the_same_bits_run_after_run(implementation, threads, dtype, rng):
    error_map = ProximalErrorMap(
        (67, 45), 1.5, channels=3, dtype=dtype, batch=2, threads=threads, implementation=implementation
    )
    for frames in (2, 1, 2):
        image, reconstruction = random_pair(rng, frames, 3, 67, 45, dtype=dtype)
        expected = proximally_sensitive_error(image, reconstruction, 1.5, implementation=implementation)
        out = poisoned(frames, 67, 45)
        error = error_map(image, reconstruction, out)
        assert error.map is out
        assert bits(error) == bits(expected)
        assert bits(error_map(image, reconstruction)) == bits(expected)
        assert bits(error_map.score(image, reconstruction)) == bits(expected[1:])


@pytest.mark.parametrize("implementation", implementations())
def test_nan_is_the_maximum_and_the_mean_of_its_frame_alone(implementation, rng):
    image, reconstruction = random_pair(rng, 2, 2, 40, 65)
    reconstruction[1, 1, 3, 5] = np.nan
    reconstruction[0, 0, 3, 5] = 3
    error = proximally_sensitive_error(image, reconstruction, 1.0, implementation=implementation)
    under_filter = np.zeros((2, 40, 65), bool)
    under_filter[1, 1:6, 3:8] = True
    np.testing.assert_array_equal(np.isnan(error.map), under_filter)
    np.testing.assert_array_equal(np.isnan(error.maximum), [False, True])
    np.testing.assert_array_equal(np.isnan(error.mean), [False, True])


@pytest.mark.parametrize("implementation", implementations())
def test_nan_of_one_frame_does_not_reach_the_next(implementation, rng):
    error_map = ProximalErrorMap((9, 37), 1.5, implementation=implementation)
    image, reconstruction = random_pair(rng, 1, 1, 9, 37)
    before = bits(error_map(image, reconstruction))
    error_map(np.full_like(image, np.nan), reconstruction)
    assert bits(error_map(image, reconstruction)) == before


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("implementation", implementations())
def test_at_sigma_0_its_mean_is_the_mean_squared_error(implementation, channels, rng):
    image, reconstruction = random_pair(rng, 2, channels, 9, 12)
    error = proximally_sensitive_error(image, reconstruction, 0, implementation=implementation)
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


@pytest.mark.parametrize("implementation", implementations())
def test_bytes_are_the_same_numbers(implementation, rng):
    image = rng.integers(0, 256, (2, 3, 9, 7), dtype=np.uint8)
    reconstruction = rng.uniform(0, 255, image.shape).astype(np.float32)
    of_bytes, of_floats = (
        proximally_sensitive_error(pixels, reconstruction, 1.5, implementation=implementation)
        for pixels in (image, image.astype(np.float32))
    )
    assert bits(of_bytes) == bits(of_floats)


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
        (IMAGE, IMAGE, MOST_SIGMA_PX + 1, "sigma: received 1001, expected at most 1000 pixels"),
        (IMAGE, np.asfortranarray(np.zeros((1, 2, 4, 4), np.float32))[:, :1], 1, "reconstruction: received a view"),
        (IMAGE.tolist(), IMAGE, 1, "image: received list"),
        (IMAGE, IMAGE[0], 1, r"reconstruction: received float32 \(1, 4, 4\)"),
    ],
)
@pytest.mark.parametrize("implementation", [None, "reference"])
def test_what_is_no_pair_of_images_is_refused(implementation, image, reconstruction, sigma, message):
    with pytest.raises(InputError, match=message):
        proximally_sensitive_error(image, reconstruction, sigma, implementation=implementation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (4, 0)}, "width: received 0, expected an integer of at least 1"),
        ({"size": (4.0, 4)}, r"height: received 4\.0"),
        ({"channels": 0}, "channels: received 0"),
        ({"batch": True}, "batch: received True"),
        ({"dtype": np.float64}, "dtype: received float64, expected uint8 or float32"),
        ({"dtype": ">f4"}, "dtype: received >f4"),
        ({"sigma": -0.5}, r"sigma: received -0\.5"),
        ({"sigma": np.inf}, "sigma: received inf"),
        ({"threads": 0}, "threads: received 0"),
        ({"implementation": "sse"}, "implementation: received 'sse'"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ProximalErrorMap(**{"size": (4, 4), "sigma": 1.0} | changes)


@pytest.mark.parametrize("implementation", [None, "reference"])
def test_frames_and_outputs_that_do_not_fit_are_refused(implementation):
    error_map = ProximalErrorMap((4, 4), 1.0, implementation=implementation)
    with pytest.raises(InputError, match="received 2 frames, expected at most 1"):
        error_map.score(np.zeros((2, 1, 4, 4), np.float32), np.zeros((2, 1, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"image: received uint8 \(1, 1, 4, 4\), expected float32 \(B, 1, 4, 4\)"):
        error_map(IMAGE.astype(np.uint8), IMAGE)
    with pytest.raises(InputError, match=r"image: received float32 \(1, 1, 4, 5\)"):
        error_map.score(np.zeros((1, 1, 4, 5), np.float32), np.zeros((1, 1, 4, 5), np.float32))
    with pytest.raises(InputError, match=r"out: received float32 \(1, 4, 3\)"):
        error_map(IMAGE, IMAGE, np.zeros((1, 4, 3), np.float32))
    with pytest.raises(InputError, match="out: received a read-only array"):
        error_map(IMAGE, IMAGE, np.frombuffer(bytes(64), np.float32).reshape(1, 4, 4))
    with pytest.raises(InputError, match="out: received memory of an image"):
        error_map(IMAGE, IMAGE, IMAGE[0])
