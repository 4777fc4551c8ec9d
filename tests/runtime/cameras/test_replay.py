import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from flawline.runtime.cameras import Status, open_source
from flawline.runtime.cameras.source import line_shape
from flawline.runtime.errors import InputError
from flawline.runtime.images import write_image


def read_all(source, timeout_s: float = 1.0) -> list[tuple]:
    """Every read until END as (info, pixels)."""
    reads = []
    buffer = np.empty((source.block_lines, *line_shape(source)), np.uint8)
    while (info := source.read(buffer, timeout_s)).status is not Status.END:
        reads.append((info, buffer[: info.lines].copy() if info.status is Status.OK else None))
    source.close()
    return reads


@pytest.mark.parametrize("block", [1, 7, 40, 41, 97, 1000])
@pytest.mark.parametrize("loop", [1, 3])
def test_blocks_joined_are_the_images_joined(web, block, loop):
    folder, pixels = web
    source = open_source(f"replay:{folder}?block={block}&loop={loop}")
    reads = read_all(source)
    np.testing.assert_array_equal(np.concatenate([part for _, part in reads]), np.tile(pixels, (loop, 1)))
    assert all(info.lines == block for info, _ in reads[:-1])
    assert [info.first_line for info, _ in reads] == list(range(0, len(pixels) * loop, block))
    assert source.counters == {"lines_sent": 97 * loop, "images_played": 4 * loop, "images_unreadable": 0}


def test_end_stays_the_end(web):
    source = open_source(f"replay:{web[0]}")
    read_all(source)
    buffer = np.empty((64, 24), np.uint8)
    assert source.read(buffer, 0).status is Status.END


def test_forever_outlasts_the_images(web):
    source = open_source(f"replay:{web[0]}?loop=forever&block=97")
    buffer = np.empty((97, 24), np.uint8)
    for _ in range(5):
        assert source.read(buffer, 0).status is Status.OK
        np.testing.assert_array_equal(buffer, web[1])
    source.close()


def test_one_image_is_a_web_too(web):
    source = open_source(f"replay:{web[0] / '0.png'}")
    assert sum(info.lines for info, _ in read_all(source)) == 40


def test_colour_stays_rgb(tmp_path):
    red = np.zeros((5, 4, 3), np.uint8)
    red[..., 0] = 200
    write_image(tmp_path / "red.png", red)
    source = open_source(f"replay:{tmp_path}")
    assert (source.width, source.channels) == (4, 3)
    np.testing.assert_array_equal(read_all(source)[0][1], red)


def test_line_rate_is_kept(web):
    rate = 2000
    source = open_source(f"replay:{web[0]}?line_rate={rate}&block=10&loop=10")
    start = time.monotonic_ns()
    reads = read_all(source)
    assert sum(info.lines for info, _ in reads) == 970
    # No block is early, by more than the grain of the clock. How late it is depends on the machine's load alone, so no
    # bound is set to that: the camera's time, by which defects are placed, must not show it.
    for info, _ in reads:
        end_line = info.first_line + info.lines
        assert info.arrival_time_ns - start >= end_line / rate * 1e9 - 1e6
        assert info.camera_time_ns == round(end_line * 1e9 / rate)


def test_slow_line_rate_times_out_and_goes_on(web):
    source = open_source(f"replay:{web[0]}?line_rate=100&block=4")
    buffer = np.empty((4, 24), np.uint8)
    statuses = [source.read(buffer, 0.005).status]
    while statuses[-1] is Status.TIMEOUT:
        statuses.append(source.read(buffer, 0.005).status)
    source.close()
    assert len(statuses) > 1
    assert statuses[-1] is Status.OK
    np.testing.assert_array_equal(buffer, web[1][:4])


def test_image_that_becomes_unreadable_is_a_gap_of_its_lines(web):
    folder, pixels = web
    source = open_source(f"replay:{folder}?block=16")
    (folder / "2.png").write_bytes(b"no image any more")
    reads = read_all(source)
    (lost,) = (info for info, part in reads if part is None)
    assert (lost.status, lost.first_line, lost.lines, lost.reason) == (Status.LOST, 41, 29, "unreadable_image")
    assert "2.png" in lost.detail
    got = np.concatenate([part for _, part in reads if part is not None])
    np.testing.assert_array_equal(got, np.delete(pixels, range(41, 70), axis=0))
    lines = 0
    for info, _ in reads:
        assert info.first_line == lines
        lines += info.lines
    assert source.counters["lines_sent"] == lines == len(pixels)
    assert source.counters["images_unreadable"] == 1


def test_image_that_changes_its_size_is_a_gap_of_the_promised_lines(web):
    folder, _ = web
    source = open_source(f"replay:{folder}")
    write_image(folder / "3.png", np.zeros((5, 24), np.uint8))
    lost = read_all(source)[-1][0]
    assert (lost.status, lost.lines) == (Status.LOST, 27)


def _wider(folder: Path) -> None:
    write_image(folder / "2.png", np.zeros((5, 25), np.uint8))


def _coloured(folder: Path) -> None:
    write_image(folder / "2.png", np.zeros((5, 24, 3), np.uint8))


def _sixteen_bits(folder: Path) -> None:
    cv2.imwrite(str(folder / "2.png"), np.zeros((5, 24), np.uint16))


def _with_alpha(folder: Path) -> None:
    cv2.imwrite(str(folder / "2.png"), np.zeros((5, 24, 4), np.uint8))


def _truncated(folder: Path) -> None:
    path = folder / "2.png"
    path.write_bytes(path.read_bytes()[:-20])


def _text(folder: Path) -> None:
    (folder / "2.png").write_text("an image, honestly")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_wider, r"2\.png is 25 px wide, the first image 24; expected one width"),
        (_coloured, r"2\.png is RGB, the first image grey"),
        (_sixteen_bits, r"2\.png has 16 bits"),
        (_with_alpha, r"2\.png has an alpha channel"),
        (_truncated, r"2\.png is truncated"),
        (_text, r"2\.png is not an image"),
    ],
)
def test_folder_with_an_unfit_image_is_refused_by_name(web, spoil, message):
    folder, _ = web
    spoil(folder)
    with pytest.raises(InputError, match=message):
        open_source(f"replay:{folder}")


def test_first_image_of_16_bits_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((5, 24), np.uint16))
    with pytest.raises(InputError, match="16 bits"):
        open_source(f"replay:{tmp_path}")


def test_folder_without_images_and_missing_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        open_source(f"replay:{tmp_path}")
    with pytest.raises(InputError, match="does not exist"):
        open_source(f"replay:{tmp_path / 'nowhere'}")
