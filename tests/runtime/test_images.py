import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flawline.runtime.errors import InputError
from flawline.runtime.images import ENDINGS, list_images, read_image, require_mode, require_size, write_image

LOSSLESS = [".png", ".bmp", ".tif", ".tiff"]


def picture(height: int = 13, width: int = 17, colour: bool = True) -> np.ndarray:
    """A smooth picture, so that JPEG keeps it nearly as it is."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 7, columns * 5, rows * 3 + columns * 4]
    return np.stack(planes, axis=2).astype(np.uint8) if colour else (rows * 6 + columns * 3).astype(np.uint8)


def encoded(ending: str, colour: bool = True) -> bytes:
    image = picture(colour=colour)
    done, data = cv2.imencode(ending, image[..., ::-1] if colour else image)
    assert done
    return data.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, before: bytes = b"", *, body: bytes | None = None
) -> bytes:
    """A PNG file from the bytes of its rows, each with its filter byte; `body` instead of the compressed rows."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows) if body is None else body)
    return b"\x89PNG\r\n\x1a\n" + header + before + data + chunk(b"IEND", b"")


def tiff(order: str = "<", data: bytes = bytes(6), **changes: object) -> bytes:
    """An uncompressed grey TIFF of 3 x 2 pixels, its directory in front, some tags changed (None leaves one out)."""
    tags = {256: 3, 257: 2, 258: 8, 259: 1, 262: 1, 273: ..., 277: 1, 278: 2, 279: len(data)}
    tags.update({int(name.removeprefix("tag")): value for name, value in changes.items()})  # type: ignore[misc]
    tags = {tag: value for tag, value in sorted(tags.items()) if value is not None}
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, start if value is ... else value) for tag, value in tags.items()
    )
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    head = mark + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + struct.pack(f"{order}I", 0) + data


def saved(folder: Path, data: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(folder: Path, data: bytes) -> str:
    path = saved(folder, data)
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert message.isprintable()
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize("ending", LOSSLESS)
@pytest.mark.parametrize("colour", [True, False])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str, colour: bool) -> None:
    path = tmp_path / f"image{ending}"
    write_image(path, picture(colour=colour))
    np.testing.assert_array_equal(read_image(path), picture(colour=colour), strict=True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".JPG"])
@pytest.mark.parametrize("colour", [True, False])
def test_jpeg_is_read_back_nearly(tmp_path: Path, ending: str, colour: bool) -> None:
    path = tmp_path / f"image{ending}"
    write_image(path, picture(colour=colour))
    image = read_image(path)
    assert image.shape == picture(colour=colour).shape
    assert np.abs(image.astype(int) - picture(colour=colour)).max() < 30


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    path = saved(tmp_path, png(1, 1, 8, 2, b"\x00\x0a\x14\x1e"))
    np.testing.assert_array_equal(read_image(path), [[[10, 20, 30]]])


def test_content_decides_on_the_format(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(".bmp"), "image.png")
    np.testing.assert_array_equal(read_image(path), picture())


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, png(1, 1, 8, 0, b"\x00\x07"))).tolist() == [[7]]


def test_one_bit_png_is_grey_of_full_range(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, png(4, 1, 1, 0, b"\x00\xa0"))).tolist() == [[255, 0, 255, 0]]


@pytest.mark.parametrize(
    ("palette", "expected"),
    [(b"\x05\x05\x05\x09\x09\x09", [[5, 9]]), (b"\x05\x06\x07\x09\x09\x09", [[[5, 6, 7], [9, 9, 9]]])],
)
def test_palette_of_greys_is_grey_and_any_other_is_colour(
    tmp_path: Path, palette: bytes, expected: list[object]
) -> None:
    path = saved(tmp_path, png(2, 1, 8, 3, b"\x00\x00\x01", chunk(b"PLTE", palette)))
    assert read_image(path).tolist() == expected


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_either_byte_order_is_read(tmp_path: Path, order: str) -> None:
    path = saved(tmp_path, tiff(order, bytes(range(6))))
    assert read_image(path).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.png does not exist; expected an image file"):
        read_image(tmp_path / "absent.png")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; expected an image file"):
        read_image(tmp_path)


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is not a regular file"):
        read_image(tmp_path / "pipe.png")


def test_file_beyond_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    path = saved(tmp_path, b"")
    os.truncate(path, (1 << 30) + 1)
    with pytest.raises(InputError, match="holds 1073741825 bytes; expected an image file of at most 1073741824"):
        read_image(path)


CMYK_JPEG = b"\xff\xd8\xff\xc0\x00\x14\x08\x00\x01\x00\x01\x04" + bytes(12) + b"\xff\xd9"
TWELVE_BIT_JPEG = b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x01\x00\x01\x01" + bytes(3) + b"\xff\xd9"
TWO_CHANNEL_JPEG = b"\xff\xd8\xff\xc0\x00\x0e\x08\x00\x01\x00\x01\x02" + bytes(6) + b"\xff\xd9"


def opencv_png(shape: tuple[int, ...], dtype: type) -> bytes:
    return cv2.imencode(".png", np.zeros(shape, dtype))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty; expected an image file", id="empty"),
        pytest.param(b"Just a text.\n", "is not an image: it begins with b'Just a t'; expected PNG, JPEG", id="text"),
        pytest.param(b"GIF89a" + bytes(20), "is not an image: it begins with b'GIF89a", id="gif"),
        pytest.param(opencv_png((4, 4), np.uint16), "has 16 bits per channel; expected 8: convert it", id="16-bit"),
        pytest.param(opencv_png((4, 4, 3), np.uint16), "has 16 bits per channel", id="16-bit colour"),
        pytest.param(opencv_png((4, 4, 4), np.uint8), "has an alpha channel; expected grey or RGB", id="rgba"),
        pytest.param(png(1, 1, 8, 4, b"\x00\x01\x02"), "has an alpha channel", id="grey with alpha"),
        pytest.param(png(1, 1, 8, 0, b"\x00\x01", chunk(b"tRNS", b"\x00\x01")), "has an alpha channel", id="tRNS"),
        pytest.param(png(1, 1, 8, 0, b"\x00\x01", chunk(b"acTL", bytes(8))), "is animated", id="apng"),
        pytest.param(png(1 << 17, 1 << 17, 8, 0, b""), "announces 131072 x 131072 pixels; expected", id="huge png"),
        pytest.param(png(0, 4, 8, 0, b""), "announces 0 x 4 pixels; expected between 1 and", id="png of no width"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", bytes(13)), "is a PNG without a header", id="png no header"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "is truncated inside its header", id="png of a signature"),
        pytest.param(png(8, 8, 8, 0, bytes(9)), "is damaged: its PNG data cannot be decoded", id="png of few rows"),
        pytest.param(png(1, 1, 8, 0, b"", body=b"junk"), "is damaged: its PNG data", id="png not compressed"),
        pytest.param(CMYK_JPEG, "is CMYK; expected grey or RGB: convert it", id="cmyk jpeg"),
        pytest.param(TWELVE_BIT_JPEG, "has 12 bits per channel; expected 8", id="12-bit jpeg"),
        pytest.param(TWO_CHANNEL_JPEG, "has 2 channels; expected 1 (grey) or 3 (RGB)", id="2-channel jpeg"),
        pytest.param(b"\xff\xd8\xff\xd9", "is a JPEG without a picture", id="jpeg of two markers"),
        pytest.param(cv2.imencode(".bmp", np.zeros((2, 2, 4), np.uint8))[1].tobytes(), "alpha channel", id="bmp alpha"),
        pytest.param(b"BM" + bytes(12) + struct.pack("<I", 12) + bytes(20), "is a BMP of OS/2 1.x", id="bmp os/2"),
        pytest.param(
            b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 2, 2, 1, 16, 0) + bytes(40),
            "is a BMP of 16 bits per pixel, compression 0",
            id="bmp 16",
        ),
        pytest.param(
            b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, -5, 1, 1, 24, 0) + bytes(40),
            "announces -5 x 1 pixels",
            id="bmp of negative width",
        ),
        pytest.param(tiff(tag258=16), "has 16 bits per channel", id="tiff 16"),
        pytest.param(tiff(tag258=None), "has 1 bits per channel", id="tiff bilevel"),
        pytest.param(tiff(tag262=5, tag277=4), "is CMYK", id="tiff cmyk"),
        pytest.param(tiff(tag277=4), "has an alpha channel", id="tiff of four channels"),
        pytest.param(tiff(tag338=1), "has an alpha channel", id="tiff of extra samples"),
        pytest.param(tiff(tag277=5), "has 5 channels", id="tiff of five channels"),
        pytest.param(tiff(tag339=3), "holds signed or floating-point pixels", id="tiff float"),
        pytest.param(tiff(tag256=None), "is a TIFF without width, height or kind", id="tiff no width"),
        pytest.param(tiff(tag273=None), "does not say where its pixels are", id="tiff no strips"),
        pytest.param(tiff(tag256=1 << 20, tag257=1 << 20), "announces 1048576 x 1048576 pixels", id="tiff huge"),
        pytest.param(b"II*\x00" + struct.pack("<I", 1 << 31), "is truncated inside its header", id="tiff nowhere"),
    ],
)
def test_file_that_is_not_an_8_bit_grey_or_rgb_image_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refusal(tmp_path, data)


def test_tiff_of_several_pages_is_refused(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "pages.tif"), [picture(), picture()])
    assert "holds several pages" in refusal(tmp_path, (tmp_path / "pages.tif").read_bytes())


def test_real_cmyk_structure_behind_other_segments_is_found(tmp_path: Path) -> None:
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xd8"
    assert refusal(tmp_path, CMYK_JPEG[:2] + comment + CMYK_JPEG[2:]).startswith("is CMYK")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("colour", [True, False])
def test_image_truncated_anywhere_is_refused(tmp_path: Path, ending: str, colour: bool) -> None:
    data = encoded(ending, colour)
    read_image(saved(tmp_path, data))
    for length in range(len(data)):
        refusal(tmp_path, data[:length])


def test_tiff_with_its_pixels_last_is_refused_when_they_are_cut(tmp_path: Path) -> None:
    assert "is truncated: 1 bytes of pixels are missing" in refusal(tmp_path, tiff()[:-1])


def test_progressive_jpeg_truncated_between_scans_is_refused(tmp_path: Path) -> None:
    done, buffer = cv2.imencode(".jpg", picture(64, 64), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    data = buffer.tobytes()
    last_scan = data.rindex(b"\xff\xda")
    assert data.count(b"\xff\xda") > 1
    assert "a JPEG without its end marker" in refusal(tmp_path, data[:last_scan])


def test_end_marker_of_a_thumbnail_does_not_hide_a_truncation(tmp_path: Path) -> None:
    data = encoded(".jpg")
    thumbnail = encoded(".jpg", colour=False)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    with_thumbnail = data[:2] + segment + data[2:]
    assert read_image(saved(tmp_path, with_thumbnail)).shape == (13, 17, 3)
    assert "a JPEG without its end marker" in refusal(tmp_path, with_thumbnail[:-40])


def test_bytes_between_the_segments_of_a_jpeg_are_refused(tmp_path: Path) -> None:
    data = encoded(".jpg")
    assert "is damaged: no JPEG marker at byte 20" in refusal(tmp_path, data[:20] + b"x" + data[20:])


def test_fill_bytes_before_a_jpeg_marker_are_allowed(tmp_path: Path) -> None:
    data = encoded(".jpg")
    filled = data[:2] + b"\xff\xff" + data[2:-2] + b"\xff" + data[-2:]
    np.testing.assert_array_equal(read_image(saved(tmp_path, filled)), read_image(saved(tmp_path, data)))


def test_every_flipped_bit_of_a_png_is_refused(tmp_path: Path) -> None:
    data = png(3, 2, 8, 0, b"\x00\x01\x02\x03\x00\x04\x05\x06")
    read_image(saved(tmp_path, data))
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refusal(tmp_path, bytes(damaged))


@given(data=st.data(), ending=st.sampled_from([".png", ".jpg", ".bmp", ".tif"]), colour=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_damaged_files_give_an_error_or_an_image_and_nothing_worse(
    tmp_path: Path, data: st.DataObject, ending: str, colour: bool
) -> None:
    content = encoded(ending, colour)
    begin = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(begin, min(begin + 8, len(content))))
    patch = data.draw(st.binary(max_size=8))
    try:
        image = read_image(saved(tmp_path, content[:begin] + patch + content[end:]))
    except InputError:
        return
    assert image.dtype == np.uint8
    assert image.ndim in (2, 3)


@given(
    data=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b""]), more=st.binary()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_random_bytes_are_refused(tmp_path: Path, data: bytes, more: bytes) -> None:
    refusal(tmp_path, data + more)


def test_a_refusal_writes_nothing_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for ending in (".png", ".jpg", ".bmp", ".tif"):
        data = encoded(ending)
        for length in range(0, len(data), 7):
            refusal(tmp_path, data[:length])
    assert "cannot be decoded" in refusal(tmp_path, tiff(tag259=7))
    assert capfd.readouterr().err == ""


def test_the_library_log_level_is_given_back_when_threads_read(tmp_path: Path) -> None:
    log = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2
    before = log.getLogLevel()
    path = saved(tmp_path, encoded(".png"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_image, [path] * 200))
    assert log.getLogLevel() == before


def test_opencv_is_imported_when_the_first_image_is_read() -> None:
    script = "import sys, flawline.runtime.images; sys.exit('cv2' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_images_of_a_folder_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["B.png", "a.JPG", "b.bmp", "c.tif", "d.tiff", "e.jpeg", "10.png", "9.png"]
    for name in [*names, "notes.txt", ".hidden.png", "png"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == sorted(names)


def test_sub_folders_are_searched_only_on_request(tmp_path: Path) -> None:
    for name in ["z.png", "b/y.png", "b/c/x.png", "a/w.png", ".cache/v.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert list_images(tmp_path) == [tmp_path / "z.png"]
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)]
    assert found == ["a/w.png", "b/c/x.png", "b/y.png", "z.png"]


def test_folder_of_folders_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in ["b", "a", ".git"]:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"holds sub-folders \(a, b\) and no image; give the folder that holds the"):
        list_images(tmp_path)
    for index in range(10):
        (tmp_path / f"c{index}").mkdir()
    with pytest.raises(InputError, match=r"\(a, b, c0, c1, c2 and 7 more\)"):
        list_images(tmp_path)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for recursive in (False, True):
        with pytest.raises(InputError, match=r"holds no image; expected files ending in \.png, \.jpg"):
            list_images(tmp_path, recursive)


def test_missing_folder_and_file_in_its_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; expected a folder of images"):
        list_images(tmp_path / "absent")
    with pytest.raises(InputError, match="is a file; expected a folder of images"):
        list_images(saved(tmp_path, b""))


def test_image_of_the_other_mode_is_refused() -> None:
    path = Path("part.png")
    require_mode(picture(colour=False), 1, path)
    require_mode(picture(colour=True), 3, path)
    with pytest.raises(InputError, match=r"part\.png is RGB; expected grey like the good images"):
        require_mode(picture(colour=True), 1, path)
    with pytest.raises(InputError, match=r"part\.png is grey; expected RGB like the good images"):
        require_mode(picture(colour=False), 3, path)


def test_image_that_is_too_small_is_refused() -> None:
    require_size(picture(16, 32), 16, Path("part.png"))
    with pytest.raises(InputError, match=r"part\.png is 32 x 15 px; expected at least 16 px each way"):
        require_size(picture(15, 32), 16, Path("part.png"))


def test_writing_replaces_an_image_whole(tmp_path: Path) -> None:
    path = saved(tmp_path, b"old")
    write_image(path, picture())
    np.testing.assert_array_equal(read_image(path), picture())


@pytest.mark.parametrize("name", ["image", "image.gif", "image.npy"])
def test_writing_under_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"expected an ending among {', '.join(ENDINGS)}"):
        write_image(tmp_path / name, picture())


@pytest.mark.parametrize("image", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8)])
def test_writing_what_is_not_an_image_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="is not an image; expected uint8"):
        write_image(tmp_path / "image.png", image)
    assert list(tmp_path.iterdir()) == []


def test_writing_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory; choose a folder that exists"):
        write_image(tmp_path / "absent" / "image.png", picture())


def test_full_disk_is_a_clear_error_and_keeps_the_former_image(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(".png"))
    script = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from flawline.runtime.errors import ResourceError\n"
        "from flawline.runtime.images import write_image\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_image(sys.argv[1], np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8))\n"
        "except ResourceError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"{path} cannot be written: File too large; nothing was kept")
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read_image(path), picture())
