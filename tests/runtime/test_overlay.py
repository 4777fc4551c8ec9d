import numpy as np
import pytest

from flawline.runtime.overlay import BOX_COLOUR, overlay
from flawline.runtime.regions import Region

GREY = np.full((64, 96), 100, np.uint8)


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 1), (64, 96, 3)])
def test_good_material_stays_as_it_is(shape):
    picture = overlay(np.full(shape, 100, np.uint8), np.full((16, 24), 2.0, np.float32), [], threshold=4.0)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.full((64, 96, 3), 100))


def test_colour_says_how_far_above_the_threshold():
    scores = np.repeat(np.array([[0, 4, 8, 80]], np.float32), 4, axis=0)
    picture = overlay(GREY, scores, [], threshold=4.0)
    low, at, twice, beyond = (picture[32, x].astype(int) for x in (4, 36, 60, 90))
    assert (low == 100).all()
    assert at[1] > at[0]
    assert at[1] > at[2]  # green at the threshold
    assert twice[0] > twice[1]
    assert twice[0] > twice[2]  # red at twice that
    np.testing.assert_array_equal(twice, beyond)


def test_boxes_are_drawn_around_the_regions_of_the_frame():
    region = Region(x=10, y=20, width=30, height=15, area_px=450, peak=5.0, mean=5.0)
    picture = overlay(GREY, np.zeros((4, 6), np.float32), [region], threshold=4.0)
    rows, columns = np.nonzero((picture == BOX_COLOUR).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 34, 10, 39)


def test_a_map_of_one_position_leaves_the_picture_as_it_is_inside_its_box():
    region = Region(x=0, y=0, width=96, height=64, area_px=96 * 64, peak=9.0, mean=9.0)
    picture = overlay(GREY, np.full((1, 1), 9.0, np.float32), [region], threshold=4.0)
    assert (picture[3:-3, 3:-3] == 100).all()
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == BOX_COLOUR).all()


def test_input_is_left_alone():
    frame, scores = GREY.copy(), np.full((4, 6), 9.0, np.float32)
    overlay(frame, scores, [Region(0, 0, 5, 5, 25, 9.0, 9.0)], threshold=4.0)
    np.testing.assert_array_equal(frame, GREY)
    assert (scores == 9).all()
