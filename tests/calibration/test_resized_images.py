"""Image files at the size of a detector."""

import numpy as np
import pytest

from flawline.calibration.good_images import check_images
from flawline.calibration.resized_images import ResizedImages
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.resizing import resize_into


def test_files_are_read_again_and_again_as_the_device_sees_them(good_images):
    paths = list_images(good_images)[:4]
    images = ResizedImages(paths, 1, 32, 48, "area")
    expected = np.empty((4, 32, 48), np.uint8)
    for path, slot in zip(paths, expected, strict=True):
        resize_into(read_image(path), slot, "area")
    assert (len(images), images.shape) == (4, (32, 48))
    for _ in range(2):
        np.testing.assert_array_equal(list(images), expected)
    np.testing.assert_array_equal(images.stacked(), expected)
    np.testing.assert_array_equal(images[2], expected[2])


def test_colour_keeps_its_channels(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    write_image(tmp_path / "a.png", frame)
    images = ResizedImages([tmp_path / "a.png"], 3, 20, 24, "linear")
    np.testing.assert_array_equal(images.stacked(), frame[None])


def test_an_image_of_another_mode_is_refused_by_name(good_images, tmp_path):
    with pytest.raises(InputError, match=r"good_00.png is grey; expected RGB like the good images"):
        ResizedImages(list_images(good_images)[:1], 3, 32, 32, "area").stacked()


@pytest.mark.parametrize(("size", "expected"), [((96, 128), "area"), ((97, 64), "linear"), ((64, 129), "linear")])
def test_areas_are_for_images_of_which_every_one_shrinks(good_images, size, expected):
    assert check_images(list_images(good_images)[:2]).interpolation(*size) == expected
