"""Anomaly maps at the size of their frames, made by the CUDA kernel under the emulator."""

import numpy as np
import pytest

from flawline.runtime.kernels import reference
from flawline.runtime.kernels.cuda.image_plan import float32_threshold
from tests.emulation.build import ORDERS
from tests.runtime.kernels.cuda.image_running import frame_maps, random_maps

# Of the map and of its frame: whole quads of pixels, others, and frames that are smaller than their map.
SIZES = [((1, 1), (1, 1)), ((7, 5), (33, 129)), ((7, 5), (16, 128)), ((14, 9), (65, 300)), ((9, 8), (5, 3))]


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize(("size", "frame_size"), SIZES)
def test_frame_map_is_the_resampled_map_and_the_mask_what_of_it_is_above(device, size, frame_size, upsampling, rng):
    maps = random_maps(rng, 3, size)
    threshold = float(np.quantile(maps, 0.6))
    expected = reference.embeddings([maps[:, None]], frame_size, upsampling).reshape(3, *frame_size)
    for order in range(ORDERS):
        out, mask = frame_maps(device, maps, frame_size, threshold=threshold, upsampling=upsampling, order=order)
        np.testing.assert_allclose(out, expected, rtol=1e-5)
        np.testing.assert_array_equal(mask, np.where(out > threshold, 255, 0))


def test_the_threshold_itself_is_not_above_it(device):
    maps = np.array([[[1, 2, 3]]], np.float32)
    _, mask = frame_maps(device, maps, (1, 3), threshold=2.0)
    np.testing.assert_array_equal(mask, [[[0, 0, 255]]])


@pytest.mark.parametrize("wanted", [("out",), ("mask",)])
def test_either_is_made_without_the_other(device, wanted, rng):
    maps = random_maps(rng, 2, (7, 5))
    both = dict(zip(("out", "mask"), frame_maps(device, maps, (33, 64), threshold=6), strict=True))
    np.testing.assert_array_equal(frame_maps(device, maps, (33, 64), threshold=6, wanted=wanted)[0], both[wanted[0]])


def test_nan_reaches_no_pixel_that_does_not_read_it(device, rng):
    maps = random_maps(rng, 1, (7, 5))
    maps[0, 3, 2] = np.nan
    expected = reference.embeddings([maps[:, None]], (14, 15), "bilinear").reshape(1, 14, 15)
    np.testing.assert_array_equal(np.isnan(frame_maps(device, maps, (14, 15))[0]), np.isnan(expected))


@pytest.mark.parametrize("value", [0.1, np.float32(0.1), 0.3, 1.0, 1e-46, -0.1, 3e38, 1e39])
def test_float32_values_are_above_the_threshold_as_float64_compares_them(value):
    nearest = np.float32(min(float(value), 3e38))
    around = [np.nextafter(nearest, np.float32(end)) for end in (-np.inf, np.inf)]
    for one in (nearest, *around, np.float32(np.inf)):
        assert (one > np.float32(float32_threshold(value))) == (float(one) > float(value))
