import resource
import threading

import numpy as np
import pytest

from flawline.runtime.detector import Result
from flawline.runtime.errors import FlawlineError
from flawline.runtime.events import Pictures
from flawline.runtime.images import read_image
from flawline.runtime.overlay import overlay
from flawline.runtime.regions import Region
from flawline.runtime.stream import Frame, PictureWriter

REGION = Region(40, 30, 10, 6, 60, 9.0, 8.0)


@pytest.fixture
def frame() -> Frame:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100), np.uint8)
    return Frame(3, 240, pixels, 0, 0)


@pytest.fixture
def result() -> Result:
    return Result(9.0, 5.0, 0.1, np.full((20, 25), 3.0, np.float32), [REGION], "none")


def test_thumbnail_is_the_defect_with_its_surroundings(tmp_path, frame):
    writer = PictureWriter(thumbnails=tmp_path / "new" / "folder")
    expected = frame.pixels[14:52, 24:66].copy()
    path = writer.thumbnail(frame, REGION, 0)
    frame.pixels[:] = 0  # the next frame arrives
    assert writer.close() == Pictures(written=1)
    np.testing.assert_array_equal(read_image(path), expected)


def test_thumbnail_ends_at_the_border_of_the_frame(tmp_path, frame):
    writer = PictureWriter(thumbnails=tmp_path)
    path = writer.thumbnail(frame, Region(0, 78, 100, 2, 200, 9.0, 8.0), 0)
    writer.close()
    assert read_image(path).shape == (18, 100)


def test_overlay_of_a_rejected_frame_is_written(tmp_path, frame, result):
    writer = PictureWriter(overlays=tmp_path)
    expected = overlay(frame.pixels, result.map, result.regions, result.threshold)
    path = writer.overlay(frame, result)
    assert writer.close() == Pictures(written=1)
    np.testing.assert_array_equal(read_image(path), expected)


def test_nothing_is_written_that_was_not_asked_for(tmp_path, frame, result):
    writer = PictureWriter(overlays=tmp_path)
    assert writer.thumbnail(frame, REGION, 0) is None
    assert writer.close() == Pictures()
    assert list(tmp_path.iterdir()) == []


def test_slow_disk_drops_pictures_and_counts_them(tmp_path, frame, monkeypatch):
    disk_is_free = threading.Event()
    monkeypatch.setattr("flawline.runtime.stream.pictures.write_image", lambda path, image: disk_is_free.wait(10))
    writer = PictureWriter(thumbnails=tmp_path, max_waiting=3)
    paths = [writer.thumbnail(frame, REGION, number) for number in range(5)]
    disk_is_free.set()
    assert [path is None for path in paths] == [False, False, False, True, True]
    assert writer.close() == Pictures(written=3, dropped=2)


def test_full_disk_is_counted_and_leaves_nothing_half_written(tmp_path, frame):
    writer = PictureWriter(thumbnails=tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to let a file grow beyond this, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        writer.thumbnail(frame, REGION, 0)
        counts = writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert counts == Pictures(failed=1)
    assert "cannot be written" in writer.error
    assert list(tmp_path.iterdir()) == []


def test_programming_error_while_writing_comes_out(tmp_path, frame, monkeypatch):
    monkeypatch.setattr("flawline.runtime.stream.pictures.write_image", lambda path, image: 1 / 0)
    writer = PictureWriter(thumbnails=tmp_path)
    writer.thumbnail(frame, REGION, 0)
    with pytest.raises(ZeroDivisionError):
        writer.close()


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FlawlineError, match="file"):
        PictureWriter(thumbnails=tmp_path / "file")
