import numpy as np
import pytest

from flawline.runtime.regions import find_regions


def test_boxes_are_in_pixels_of_the_frame_and_highest_peak_comes_first():
    anomaly_map = np.zeros((10, 20), np.float32)
    anomaly_map[1:3, 2:5] = 2
    anomaly_map[6:8, 10:14] = 3
    anomaly_map[7, 11] = 5
    first, second = find_regions(anomaly_map, 1.0, (100, 400))
    assert (first.x, first.y, first.width, first.height) == (200, 60, 80, 20)
    assert first.peak == 5
    assert first.mean == pytest.approx((3 * 7 + 5) / 8)
    assert first.area_px == 8 * 10 * 20
    assert (second.x, second.y, second.width, second.height) == (40, 10, 60, 20)


def test_regions_that_touch_at_a_corner_are_one():
    anomaly_map = np.zeros((4, 4), np.float32)
    anomaly_map[0, 0] = anomaly_map[1, 1] = 1
    (region,) = find_regions(anomaly_map, 0.5, (4, 4))
    assert (region.width, region.height, region.area_px) == (2, 2, 2)


def test_a_region_of_another_component_inside_the_box_does_not_count():
    anomaly_map = np.zeros((5, 5), np.float32)
    anomaly_map[0, :] = anomaly_map[:, 0] = 1
    anomaly_map[3, 3] = 9
    regions = find_regions(anomaly_map, 0.5, (5, 5))
    assert [region.peak for region in regions] == [9, 1]


def test_nothing_above_the_threshold_gives_nothing():
    assert find_regions(np.ones((3, 3), np.float32), 1.0, (3, 3)) == []


def test_the_threshold_is_compared_as_the_verdict_compares_it():
    # 13.1 lies between two float32 numbers; the larger is above it although it is what 13.1 rounds to.
    value = np.float32(13.1)
    threshold = float(np.nextafter(np.float64(value), 0))
    assert len(find_regions(np.full((2, 2), value), threshold, (2, 2))) == 1


def test_a_frame_smaller_than_its_map_still_gets_boxes_of_a_pixel():
    (region,) = find_regions(np.eye(8, dtype=np.float32)[:1], 0.5, (1, 2))
    assert (region.width, region.height) == (1, 1)
