"""Proximally Sensitive Error, found by the CUDA kernels under the emulator."""

import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import proximally_sensitive_error
from flawline.runtime.kernels.cuda import image_calls
from tests.emulation.build import ORDERS
from tests.runtime.kernels.cuda.image_running import Errors, random_pair

# Around the tile of the kernels, 64 x 32; widths that are whole quads and others.
SIZES = [(1, 1), (31, 65), (32, 64), (33, 63), (7, 130), (65, 20)]
DTYPES = [np.uint8, np.float32]
TOLERANCE = 1e-5


def assert_equal(error, expected):
    # Where a sum of residuals is near 0, what rounding leaves of it counts against the error of the frame.
    np.testing.assert_allclose(error.map, expected.map, rtol=TOLERANCE, atol=TOLERANCE * expected.mean.min())
    np.testing.assert_array_equal(error.maximum, error.map.max((1, 2)))
    np.testing.assert_allclose(error.mean, expected.mean, rtol=TOLERANCE)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_error_is_that_of_the_reference(device, dtype, size, sigma, rng):
    image, reconstruction = random_pair(rng, dtype, 2, 1, *size)
    expected = proximally_sensitive_error(image, reconstruction, sigma, implementation="reference")
    errors = Errors(device, image, sigma)
    assert errors.kernel.startswith("pse_tiles")
    for order in range(ORDERS):
        assert_equal(errors(image, reconstruction, order=order), expected)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("planar", [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_channels_are_filtered_apart_in_either_layout(device, dtype, planar, normalised, rng):
    image, reconstruction = random_pair(rng, dtype, 2, 3, 33, 68)
    expected = proximally_sensitive_error(image, reconstruction, 1.5, normalised=normalised, implementation="reference")
    errors = Errors(device, image, 1.5, planar=planar[0], planar_reconstruction=planar[1], normalised=normalised)
    for order in range(ORDERS):
        assert_equal(errors(image, reconstruction, order=order), expected)


@pytest.mark.parametrize(("sigma", "kernel"), [(10.4, "pse_tiles"), (10.5, "pse_columns"), (40, "pse_columns")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_filters_that_are_too_wide_for_shared_memory_take_a_kernel_without(device, dtype, sigma, kernel, rng):
    image, reconstruction = random_pair(rng, dtype, 1, 1, 33, 65)
    errors = Errors(device, image, sigma)
    assert errors.kernel.startswith(kernel)
    assert_equal(
        errors(image, reconstruction),
        proximally_sensitive_error(image, reconstruction, sigma, implementation="reference"),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_kernels_give_the_same_bits_in_any_order_of_threads(device, dtype, rng):
    image, reconstruction = random_pair(rng, dtype, 2, 3, 33, 68)
    errors = Errors(device, image, 2.0)
    first = errors(image, reconstruction)
    others = [errors(image, reconstruction, order=order) for order in range(1, ORDERS)]
    others.append(errors(image, reconstruction, kernel=errors.kernel.replace("tiles", "columns")))
    for other in others:
        assert all(one.tobytes() == same.tobytes() for one, same in zip(other, first, strict=True))


def test_nan_is_the_maximum_and_the_mean_of_its_frame_alone(device, rng):
    image, reconstruction = random_pair(rng, np.float32, 2, 1, 40, 65)
    reconstruction[1, 0, 3, 5] = np.nan
    error = Errors(device, image, 1.0)(image, reconstruction)
    np.testing.assert_array_equal(
        np.isnan(error.map),
        np.isnan(proximally_sensitive_error(image, reconstruction, 1, implementation="reference").map),
    )
    np.testing.assert_array_equal(np.isnan(error.maximum), [False, True])
    np.testing.assert_array_equal(np.isnan(error.mean), [False, True])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (4, 0)}, "width: received 0, expected an integer of at least 1"),
        ({"channels": 0}, "channels: received 0, expected an integer of at least 1"),
        ({"dtype": np.float64}, "dtype: received float64, expected uint8 or float32"),
        ({"sigma": np.inf}, "sigma: received inf, expected a finite number of pixels of at least 0"),
    ],
)
def test_what_no_kernel_compares_is_refused(device, changes, message):
    good = {"size": (4, 4), "frames": 1, "sigma": 1.0, "dtype": np.uint8, "upload": device.put}
    with pytest.raises(InputError, match=message):
        image_calls.proximal_error(**{**good, **changes})
