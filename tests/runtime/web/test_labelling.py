import itertools

import cv2
import numpy as np
import pytest

from flawline.runtime.web.components import Component
from flawline.runtime.web.labelling import SEGMENT_ROWS, StripLabeller


def random_web(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, mask and flagged rows: from speckles to blobs that percolate."""
    height, width = rng.integers(1, 60), rng.integers(1, 40)
    noise = rng.random((height, width)).astype(np.float32)
    sigma = rng.choice([0.0, 0.7, 1.5])
    values = cv2.GaussianBlur(noise, (0, 0), sigma) if sigma else noise
    # Few values, so that peaks are often equal.
    values = np.round(values, 2 if rng.random() < 0.5 else 7) + np.float32(0.5)
    mask = values > np.quantile(values, rng.choice([0.3, 0.55, 0.8, 0.95]))
    return values, mask, rng.random(height) < 0.1


def random_ends(rng: np.random.Generator, height: int) -> list[int]:
    return sorted(rng.integers(0, height + 1, rng.integers(0, 8)).tolist())


def in_strips(labeller: StripLabeller, first_row: int, values, mask, flagged, ends) -> list[Component]:
    components = []
    for start, end in itertools.pairwise([0, *ends, len(mask)]):
        part = slice(start, end)
        components += labeller.add(first_row + start, values[part], mask[part], flagged[part])
    return components + labeller.cut()


def component(ys, xs, first_row: int, values, flagged, *, is_open=False, continued=False) -> Component:
    inside = values[ys, xs]
    peak = inside.argmax()  # the first of equals, row by row
    return Component(
        x=int(xs.min()),
        y=int(ys.min()) + first_row,
        width=int(np.ptp(xs)) + 1,
        height=int(np.ptp(ys)) + 1,
        area=len(ys),
        peak=float(inside[peak]),
        peak_x=int(xs[peak]),
        peak_y=int(ys[peak]) + first_row,
        mean=float(inside.astype(np.float64).sum() / len(ys)),
        flagged=bool(flagged[ys].any()),
        open=is_open,
        continued=continued,
    )


def in_order(components: list[Component]) -> list[Component]:
    return sorted(components, key=lambda entry: (entry.last_row, entry.peak_y, entry.peak_x))


def labels_by_distance(ys, xs, distance: tuple[int, int]) -> np.ndarray:
    """Positions that belong together have the same label, by the definition: the smallest of their numbers."""
    near = (abs(ys[:, None] - ys) <= distance[0] + 1) & (abs(xs[:, None] - xs) <= distance[1] + 1)
    labels = np.arange(len(ys))
    while True:
        smallest = np.where(near, labels, len(ys)).min(axis=1, initial=len(ys))
        if (smallest == labels).all():
            return labels
        labels = smallest


def reported_row_by_row(first_row, values, mask, flagged, distance, max_rows, min_area) -> list[Component]:
    """What is known after each row, with everything labelled anew."""
    all_ys, all_xs = np.nonzero(mask)
    reported = np.zeros(len(all_ys), bool)
    cut = np.zeros(len(all_ys), bool)
    components = []
    for row in range(len(mask) + distance[0] + 1):
        count = np.searchsorted(all_ys, row, side="right")
        ys, xs = all_ys[:count], all_xs[:count]
        labels = labels_by_distance(ys, xs, distance)
        closed, long = [], []
        for label in np.unique(labels[~reported[:count]]):
            region = np.flatnonzero(labels == label)
            rest = region[~reported[region]]
            place = (ys[rest], xs[rest], first_row, values, flagged)
            continued = bool(cut[region].any())
            if ys[region].max() + distance[0] < row:
                reported[rest] = True
                if len(rest) >= min_area or continued:
                    closed.append(component(*place, continued=continued))
            elif row < len(mask) and row + 1 - ys[rest].min() >= max_rows:
                reported[rest] = cut[rest] = True
                long.append(component(*place, is_open=True, continued=continued))
        components += in_order(closed) + in_order(long)
    return components


def test_a_thousand_webs_in_strips_are_labelled_as_the_whole():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        values, mask, flagged = random_web(rng)
        first_row, min_area = int(rng.integers(0, 10**9)), int(rng.integers(0, 5))
        labeller = StripLabeller(mask.shape[1], max_rows=1000, min_area=min_area)
        strips = in_strips(labeller, first_row, values, mask, flagged, random_ends(rng, len(mask)))
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions = [np.nonzero(labels == label) for label in range(1, count)]
        whole = [component(*region, first_row, values, flagged) for region in regions if len(region[0]) >= min_area]
        assert strips == in_order(whole)


def test_so_are_webs_whose_near_regions_are_one():
    rng = np.random.default_rng(1)
    for _ in range(300):
        values, mask, flagged = random_web(rng)
        mask &= rng.random(mask.shape) < rng.choice([0.02, 0.1])
        distance = (int(rng.integers(0, 7)), int(rng.integers(0, 7)))
        labeller = StripLabeller(mask.shape[1], max_rows=1000, merge_distance=distance)
        strips = in_strips(labeller, 7, values, mask, flagged, random_ends(rng, len(mask)))
        ys, xs = np.nonzero(mask)
        labels = labels_by_distance(ys, xs, distance)
        whole = [component(ys[labels == n], xs[labels == n], 7, values, flagged) for n in np.unique(labels)]
        assert strips == in_order(whole)


def test_so_are_webs_whose_long_regions_are_reported_in_pieces():
    rng = np.random.default_rng(2)
    pieces = 0
    for _ in range(80):
        values, mask, flagged = random_web(rng)
        mask &= rng.random(mask.shape) < 0.3
        distance = (int(rng.integers(0, 3)), int(rng.integers(0, 3)))
        max_rows, min_area = int(rng.integers(1, 20)), int(rng.integers(0, 4))
        labeller = StripLabeller(mask.shape[1], max_rows=max_rows, merge_distance=distance, min_area=min_area)
        strips = in_strips(labeller, 7, values, mask, flagged, random_ends(rng, len(mask)))
        assert strips == reported_row_by_row(7, values, mask, flagged, distance, max_rows, min_area)
        assert all(entry.height <= max_rows for entry in strips)
        pieces += sum(entry.continued for entry in strips)
    assert pieces > 80


def test_an_endless_streak_comes_in_pieces_of_the_greatest_length():
    labeller = StripLabeller(50, max_rows=100)
    mask = np.zeros((64, 50), bool)
    mask[:, 20:23] = True
    values = np.where(mask, np.float32(2), np.float32(0))
    components = [entry for strip in range(10) for entry in labeller.add(64 * strip, values, mask)]
    components += labeller.cut()
    assert [(entry.y, entry.height, entry.open, entry.continued) for entry in components] == [
        (0, 100, True, False),
        *((first, 100, True, True) for first in range(100, 600, 100)),
        (600, 40, False, True),
    ]
    assert sum(entry.area for entry in components) == 640 * 3


def test_nothing_is_joined_across_a_cut():
    labeller = StripLabeller(6, max_rows=100, merge_distance=(3, 3))
    ones = np.ones((4, 6), np.float32)
    assert labeller.add(0, ones, ones > 0) == []
    assert labeller.open_peaks == [(0, 0)]
    (before,) = labeller.cut()
    assert labeller.open_peaks == []
    assert labeller.add(4, ones, ones > 0) == []
    (behind,) = labeller.cut()
    assert [(entry.y, entry.height) for entry in (before, behind)] == [(0, 4), (4, 4)]


def test_a_region_is_given_out_with_the_row_that_closes_it():
    labeller = StripLabeller(5, max_rows=100, merge_distance=(2, 0))
    mask = np.zeros((1, 5), bool)
    assert labeller.add(10, np.ones((1, 5), np.float32), ~mask) == []
    for row in (11, 12):
        assert labeller.add(row, np.zeros((1, 5), np.float32), mask) == []
    (closed,) = labeller.add(13, np.zeros((1, 5), np.float32), mask)
    assert closed.last_row == 10


def test_a_strip_longer_than_a_segment_is_labelled_whole():
    rows = 3 * SEGMENT_ROWS + 5
    ones = np.ones((rows, 9), np.float32)
    labeller = StripLabeller(9, max_rows=10 * rows, merge_distance=(1, 1))
    assert labeller.add(0, ones, ones > 0) == []
    (whole,) = labeller.cut()
    assert (whole.height, whole.area) == (rows, 9 * rows)


def test_missing_rows_and_other_widths_are_refused():
    labeller = StripLabeller(4, max_rows=10)
    empty = np.zeros((2, 4), np.float32)
    labeller.add(0, empty, empty > 0)
    for first_row in (1, 3):
        with pytest.raises(ValueError, match="expected 2, or a cut"):
            labeller.add(first_row, empty, empty > 0)
    labeller.cut()
    labeller.add(3, empty, empty > 0)
    with pytest.raises(ValueError, match="expected 4 columns"):
        labeller.add(5, empty[:, :3], empty[:, :3] > 0)


@pytest.mark.parametrize("numbers", [{"max_rows": 0}, {"merge_distance": (-1, 0)}, {"min_area": -1}])
def test_numbers_that_are_too_small_are_refused(numbers):
    with pytest.raises(ValueError, match="positive"):
        StripLabeller(4, **{"max_rows": 10} | numbers)
