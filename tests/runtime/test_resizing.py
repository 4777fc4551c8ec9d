"""A frame at another size: by areas where both sides shrink, else linear."""

import numpy as np
import pytest

from flawline.runtime.resizing import resize_into

cv2 = pytest.importorskip("cv2")

FRAME = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_a_frame_of_that_size_is_copied(channels):
    frame = np.random.default_rng(1).integers(0, 256, (16, 24, *channels), np.uint8)
    target = np.zeros_like(frame)
    resize_into(frame, target, "area")
    np.testing.assert_array_equal(target, frame)


def test_areas_are_means_of_pixels():
    target = np.zeros((24, 16), np.uint8)
    resize_into(FRAME, target, "area")
    means = FRAME.reshape(24, 2, 16, 4).mean(axis=(1, 3))
    assert np.abs(target - means).max() <= 0.5


@pytest.mark.parametrize(("size", "interpolation"), [((24, 128), "area"), ((96, 128), "area"), ((24, 32), "linear")])
def test_all_else_is_linear(size, interpolation):
    target = np.zeros(size, np.uint8)
    resize_into(FRAME, target, interpolation)
    np.testing.assert_array_equal(target, cv2.resize(FRAME, size[::-1], interpolation=cv2.INTER_LINEAR))


def test_colours_are_kept_apart():
    frame = np.stack([FRAME, FRAME.T[:48, :64].repeat(2, 1)[:, :64], 255 - FRAME], axis=2)
    target, plane = np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.uint8)
    resize_into(frame, target, "area")
    for channel in range(3):
        resize_into(np.ascontiguousarray(frame[..., channel]), plane, "area")
        np.testing.assert_array_equal(target[..., channel], plane)
