import numpy as np

from flawline.runtime.web.snapshots import Snapshots, View

WEB = np.random.default_rng(0).integers(0, 256, (1000, 300), np.uint8)


def view(first_line: int, lines: int = 200) -> View:
    return View(first_line, WEB[first_line : first_line + lines].copy())


def test_a_picture_is_kept_until_its_region_is_reported():
    snapshots = Snapshots(4, size_px=64)
    seen = view(0)
    snapshots.keep([(25, 40)], seen)
    seen.pixels[:] = 0  # the next strip
    snapshots.keep([(25, 40)], view(400))
    np.testing.assert_array_equal(snapshots.of((25, 40), view(600)), WEB[102 - 32 : 102 + 32, 162 - 32 : 162 + 32])
    np.testing.assert_array_equal(snapshots.of((25, 40)), WEB[70:134, 130:194])


def test_the_picture_of_a_peak_that_was_overtaken_is_dropped():
    snapshots = Snapshots(4)
    snapshots.keep([(25, 40)], view(0))
    snapshots.keep([(110, 40)], view(400))
    assert len(snapshots) == 1
    assert snapshots.of((25, 40)) is None
    assert snapshots.of((110, 40)) is not None


def test_pictures_end_where_the_view_does():
    snapshots = Snapshots(4, size_px=64)
    np.testing.assert_array_equal(snapshots.of((101, 74), view(400)), WEB[400:438, 266:300])
    assert snapshots.of((99, 0), view(400)) is None
    assert snapshots.of((150, 0), view(400)) is None


def test_no_more_than_so_many_are_kept():
    snapshots = Snapshots(1, size_px=8, most=3)
    peaks = [(row, 10) for row in range(10)]
    for _ in range(3):
        snapshots.keep(peaks, view(0))
        assert len(snapshots) == 3
    assert snapshots.of((0, 10)) is not None
    assert snapshots.of((3, 10)) is None
    snapshots.keep(peaks[5:], view(400))  # out of sight
    assert len(snapshots) == 0


def test_a_new_region_does_not_push_out_the_picture_of_an_older_one():
    snapshots = Snapshots(1, size_px=8, most=3)
    old = [(row, 10) for row in (20, 21, 22)]
    snapshots.keep(old, view(0))
    snapshots.keep([(30, 10), *old], view(0))
    assert all(snapshots.of(peak) is not None for peak in old)
    assert snapshots.of((30, 10)) is None
