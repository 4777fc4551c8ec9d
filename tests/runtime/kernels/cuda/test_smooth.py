"""Smoothing and maximum of anomaly maps, run by the CUDA kernels under the emulator."""

import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import reference
from flawline.runtime.kernels.cuda import image_calls
from tests.emulation.build import ORDERS
from tests.runtime.kernels.cuda.image_running import random_maps, smooth

# Around the tile of the kernel, 32 x 16.
SIZES = [(1, 1), (1, 33), (56, 1), (7, 31), (15, 32), (16, 33), (17, 7), (32, 56), (33, 65), (65, 32)]
TOLERANCE = 1e-5


@pytest.mark.parametrize("sigma", [0.0, 1.3, 4.0])
@pytest.mark.parametrize("size", SIZES)
def test_smoothing_is_that_of_the_reference_and_the_scores_are_its_maxima(device, size, sigma, rng):
    maps = random_maps(rng, 3, size)
    expected = reference.smooth(maps, sigma)
    for order in range(ORDERS):
        out, scores = smooth(device, maps, sigma, order=order)
        np.testing.assert_allclose(out, expected, rtol=TOLERANCE)
        np.testing.assert_array_equal(scores, out.max((1, 2)))


def test_sigma_0_copies(device, rng):
    maps = random_maps(rng, 2, (33, 65))
    out, _ = smooth(device, maps, 0.0)
    assert out.tobytes() == maps.tobytes()


@pytest.mark.parametrize(
    ("sigma", "kernel"), [(12.0, "smooth_tiles"), (12.1, "smooth_columns"), (40.0, "smooth_columns")]
)
def test_filters_that_are_too_wide_for_shared_memory_take_a_kernel_without(device, sigma, kernel, rng):
    maps = random_maps(rng, 2, (17, 33))
    assert image_calls.smooth((17, 33), 2, sigma, device.put).kernel == kernel
    out, scores = smooth(device, maps, sigma)
    np.testing.assert_allclose(out, reference.smooth(maps, sigma), rtol=TOLERANCE)
    np.testing.assert_array_equal(scores, out.max((1, 2)))


@pytest.mark.parametrize("sigma", [0.0, 1.3, 4.0])
def test_both_kernels_give_the_same_bits(device, sigma, rng):
    maps = random_maps(rng, 2, (33, 65))
    tiles, _ = smooth(device, maps, sigma, kernel="smooth_tiles")
    columns, _ = smooth(device, maps, sigma, kernel="smooth_columns")
    assert tiles.tobytes() == columns.tobytes()


@pytest.mark.parametrize("kernel", ["smooth_tiles", "smooth_columns"])
@pytest.mark.parametrize("nan", [np.float32("nan"), -np.float32("nan")])
def test_nan_spreads_as_in_the_reference_and_is_the_score_of_its_frame_alone(device, nan, kernel, rng):
    maps = random_maps(rng, 2, (33, 40))
    maps[1, 20, 31] = nan
    out, scores = smooth(device, maps, 1.3, kernel=kernel)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(reference.smooth(maps, 1.3)))
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 3), 1, 1.0), "height: received 0, expected an integer of at least 1"),
        (((3, 3), 0, 1.0), "frames: received 0, expected an integer of at least 1"),
        (((3, 3), 1, -1.0), "sigma: received -1.0, expected a finite number of pixels of at least 0"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(device, arguments, message):
    with pytest.raises(InputError, match=message):
        image_calls.smooth(*arguments, device.put)
