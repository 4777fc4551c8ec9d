import argparse
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.bundle import tensors
from flawline.runtime.commands import flat_field as command
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.images import write_image
from flawline.runtime.web.flat_field import (
    GAIN_MAX,
    FlatField,
    FlatFieldCorrector,
    LineAverage,
    load,
    make_flat_field,
    save,
)


def in_integers(lines: np.ndarray, field: FlatField) -> np.ndarray:
    """What the correction is defined as: (in - dark) x gain / 4096, rounded half to even, and replaced pixels."""
    product = np.maximum(lines.astype(np.int64) - field.dark, 0) * field.gain
    whole, rest = product >> 12, product & 4095
    out = np.minimum(whole + ((rest > 2048) | ((rest == 2048) & (whole & 1 == 1))), 255).astype(np.uint8)
    sound = [pixel for pixel in range(lines.shape[1]) if pixel not in field.faulty]
    for pixel in field.faulty:
        out[:, pixel] = out[:, min(sound, key=lambda other: (abs(other - pixel), other))]
    return out


def random_field(generator: np.random.Generator, shape: tuple[int, ...]) -> FlatField:
    gain = generator.integers(1, 3 * 4096, shape, dtype=np.int32)
    gain.flat[0], gain.flat[-1] = 1, GAIN_MAX
    return FlatField(generator.integers(0, 30, shape, dtype=np.uint8), gain, np.zeros(0, np.int32))


def averaged(lines: np.ndarray) -> LineAverage:
    average = LineAverage(lines.shape[1:])
    for first in range(0, len(lines), 100):
        average.add(lines[first : first + 100])
    return average


@pytest.mark.parametrize("lines", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (65,), (517,), (40, 3)])
def test_correction_is_that_of_integers(lines, shape):
    generator = np.random.default_rng(lines + shape[0])
    field = random_field(generator, shape)
    pixels = generator.integers(0, 256, (lines, *shape), dtype=np.uint8)
    expected = in_integers(pixels, field)
    FlatFieldCorrector(field, shape)(pixels)
    np.testing.assert_array_equal(pixels, expected)


def test_every_byte_times_every_gain_is_exact():
    gain = np.arange(1, GAIN_MAX + 1, dtype=np.int32)
    field = FlatField(np.zeros(len(gain), np.uint8), gain, np.zeros(0, np.int32))
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], len(gain), axis=1)
    expected = in_integers(pixels, field)
    FlatFieldCorrector(field, gain.shape)(pixels)
    np.testing.assert_array_equal(pixels, expected)


def references(generator: np.random.Generator, width: int, lines: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lines of a camera with a dark offset, lens shading and unequal pixels: dark, white, and its answer to light."""
    offset = generator.uniform(2, 12, width)
    answer = (1 - 0.5 * np.linspace(-1, 1, width) ** 2) * generator.normal(1, 0.02, width)
    dark = offset + generator.normal(0, 1.5, (lines, width))
    white = offset + 200 * answer + generator.normal(0, 2, (lines, width))
    return *(np.clip(np.rint(part), 0, 255).astype(np.uint8) for part in (dark, white)), np.array([offset, answer])


def test_stripes_and_shading_of_a_web_go():
    generator = np.random.default_rng(8)
    dark, white, (offset, answer) = references(generator, 400, 2048)
    field = make_flat_field(averaged(dark), averaged(white))
    assert len(field.faulty) == 0
    even = np.clip(np.rint(offset + 120 * answer + generator.normal(0, 0.5, (256, 400))), 0, 255).astype(np.uint8)
    before = even.mean(axis=0).std()
    FlatFieldCorrector(field, (400,))(even)
    assert before > 15
    assert even.mean(axis=0).std() < 0.6
    # The brightness of white stays what it was on average.
    FlatFieldCorrector(field, (400,))(white)
    assert white.mean() == pytest.approx(200 * answer.mean(), abs=1)


def test_dead_and_saturated_pixels_are_named_and_replaced_by_a_neighbour():
    generator = np.random.default_rng(9)
    dark, white, _ = references(generator, 400, 300)
    white[:, 0] = dark[:, 0]
    white[:, 77] = 255
    dark[:, 399], white[:, 399] = 250, 254
    field = make_flat_field(averaged(dark), averaged(white))
    assert field.faulty.tolist() == [0, 77, 399]
    expected = in_integers(white, field)
    FlatFieldCorrector(field, (400,))(white)
    np.testing.assert_array_equal(white, expected)
    np.testing.assert_array_equal(white[:, [0, 77, 399]], white[:, [1, 76, 398]])


def test_faulty_pixel_of_a_colour_line_is_replaced_in_all_colours():
    dark, white = np.zeros((50, 200, 3), np.uint8), np.full((50, 200, 3), 180, np.uint8)
    white[:, 10, 1] = 2
    field = make_flat_field(averaged(dark), averaged(white))
    assert field.faulty.tolist() == [10]
    FlatFieldCorrector(field, (200, 3))(white)
    np.testing.assert_array_equal(white, 180)


def test_saturated_white_is_refused_with_its_pixels():
    white = np.full((10, 100), 200, np.uint8)
    white[:, 40:43] = 255
    with pytest.raises(
        InputError, match=r"saturated in 3 of 100 pixels \(pixel 40, 41, 42\); expected none: take less"
    ):
        make_flat_field(averaged(np.zeros((10, 100), np.uint8)), averaged(white))


def test_exchanged_references_are_refused():
    dark, white, _ = references(np.random.default_rng(1), 100, 50)
    with pytest.raises(InputError, match=r"hardly brighter than the dark one in 100 of 100 pixels.*exchanged"):
        make_flat_field(averaged(white), averaged(dark))


def test_references_of_two_widths_and_empty_ones_are_refused():
    with pytest.raises(InputError, match="lines of 8 px grey, the white one of 9 px grey; expected the same camera"):
        make_flat_field(averaged(np.zeros((1, 8), np.uint8)), averaged(np.full((1, 9), 99, np.uint8)))
    with pytest.raises(InputError, match="the white reference holds no line"):
        make_flat_field(averaged(np.zeros((1, 8), np.uint8)), LineAverage((8,)))


@pytest.mark.parametrize("shape", [(21,), (20, 3)])
def test_flat_field_of_other_lines_is_refused(shape):
    field = random_field(np.random.default_rng(0), (20,))
    with pytest.raises(InputError, match="flat field is of lines of 20 px grey, the camera's are of"):
        FlatFieldCorrector(field, shape)


def test_lines_that_cannot_be_corrected_in_place_are_a_bug_of_the_caller():
    corrector = FlatFieldCorrector(random_field(np.random.default_rng(0), (20,)), (20,))
    with pytest.raises(ValueError, match="contiguous"):
        corrector(np.zeros((8, 40), np.uint8)[:, ::2])


@pytest.mark.parametrize("faulty", [[], [3, 32]])
def test_saved_is_loaded(tmp_path, faulty):
    field = random_field(np.random.default_rng(2), (33,))
    field = FlatField(field.dark, field.gain, np.array(faulty, np.int32))
    save(tmp_path / "camera.flat", field)
    loaded = load(tmp_path / "camera.flat")
    for name in ("dark", "gain", "faulty"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(field, name))
    tensors.confirm(tmp_path / "camera.flat")
    assert [path.name for path in tmp_path.iterdir()] == ["camera.flat"]


def stored(**changes) -> bytes:
    """A flat field of 20 pixels with some arrays exchanged, left out (None) or added."""
    arrays = {
        "version": np.array([1], np.int32),
        "dark": np.zeros(20, np.uint8),
        "gain": np.full(20, 4096, np.int32),
    }
    arrays |= changes
    file = BytesIO()
    tensors.write(file, {name: value for name, value in arrays.items() if value is not None})
    return file.getvalue()


def with_header(**fields) -> bytes:
    header = json.dumps(fields).encode()
    header += b" " * (-(8 + len(header)) % 64)
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds 0 bytes"),
        (b"\x89PNG not a flat field at all", "announces a header"),
        (stored()[:-1], "truncated"),
        (stored()[:40], "truncated"),
        (stored() + b"x", "follow the last tensor"),
        (b"\xff" * 8 + stored()[8:], "announces a header"),
        (with_header(dark={"dtype": "U8", "shape": [1 << 60], "data_offsets": [0, 1 << 60]}), "truncated"),
        (stored(version=None), "has no version"),
        (stored(version=np.array([1.0], np.float32)), "has no version"),
        (stored(version=np.array([2], np.int32)), "version 2; expected 1"),
        (stored(dark=None, gain=None), "holds nothing; expected dark, gain"),
        (stored(dark=None), "holds gain; expected dark, gain"),
        (stored(gain=None), "holds dark; expected dark, gain"),
        (stored(sideways=np.zeros(20, np.uint8)), "holds dark, gain, sideways; expected dark, gain and"),
        (stored(dark=np.zeros(20, np.float32)), "dark is float32"),
        (stored(dark=np.zeros((20, 2), np.uint8)), r"dark is uint8 \(20, 2\)"),
        (stored(dark=np.zeros(21, np.uint8)), r"gain is int32 \(20,\); expected int32 \(21,\)"),
        (stored(gain=np.full(20, np.nan, np.float32)), "gain is float32"),
        (stored(gain=np.full(20, 0, np.int32)), "gain has 0 to 0; expected 1 to 65535"),
        (stored(gain=np.full(20, 65536, np.int32)), "gain has 65536"),
        (stored(faulty=np.array([np.nan], np.float32)), "faulty is float32"),
        (stored(faulty=np.array([20], np.int32)), "not rising pixels of a line of 20"),
        (stored(faulty=np.array([-1], np.int32)), "not rising pixels"),
        (stored(faulty=np.array([4, 4], np.int32)), "not rising pixels"),
        (stored(faulty=np.array([0, 2**31 - 1, -(2**31), -1, 5], np.int32)), "not rising pixels"),
        (stored(faulty=np.arange(20, dtype=np.int32)), "not rising pixels"),
    ],
)
def test_hostile_file_is_refused(tmp_path, data, message):
    path = tmp_path / "camera.flat"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_every_flipped_or_missing_byte_is_refused_or_gives_a_valid_field(tmp_path):
    whole, path = stored(faulty=np.array([3], np.int32)), tmp_path / "camera.flat"
    for position in range(len(whole)):
        for data in (whole[:position], whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :]):
            path.write_bytes(data)
            try:
                field = load(path)
            except InputError:
                continue
            assert len(data) == len(whole)
            FlatFieldCorrector(field, (20,))(np.zeros((2, 20), np.uint8))


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load(tmp_path)


# The command.


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def images(tmp_path) -> tuple[Path, Path]:
    dark, white, _ = references(np.random.default_rng(4), 120, 2500)
    write_image(tmp_path / "dark.png", dark)
    (tmp_path / "white?").mkdir()
    write_image(tmp_path / "white?" / "1.png", white[:1000])
    write_image(tmp_path / "white?" / "2.png", white[1000:])
    return tmp_path / "dark.png", tmp_path / "white?"


def test_command_makes_one_from_images_and_sources_and_makes_it_anew(images, tmp_path, capsys):
    dark, white = images
    out = tmp_path / "camera.flat"
    assert run("--dark", dark, "--white", white, "--out", out) == 0
    said = capsys.readouterr()
    assert "camera.flat: 120 px, 2500 dark and 2500 white lines" in said.out
    assert said.err == ""
    before = load(out)
    assert run("--dark", f"replay:{dark}", "--white", white, "--lines", 500, "--out", out) == 0
    assert "only 500 lines averaged; 2048 or more are recommended" in capsys.readouterr().err
    after = load(out)
    assert not np.array_equal(before.gain, after.gain)
    assert np.abs(before.gain - after.gain).max() < 100


def test_command_names_faulty_pixels(tmp_path, capsys):
    dark, white, _ = references(np.random.default_rng(4), 300, 2100)
    white[:, 17] = 3
    write_image(tmp_path / "dark.png", dark)
    write_image(tmp_path / "white.png", white)
    run("--dark", tmp_path / "dark.png", "--white", tmp_path / "white.png", "--out", tmp_path / "camera.flat")
    assert capsys.readouterr().err == "dead or saturated, and replaced by a neighbour: pixel 17\n"


def test_command_refuses_what_it_cannot_use(images, tmp_path):
    dark, white = images
    out = tmp_path / "camera.flat"
    with pytest.raises(InputError, match="--lines 0; expected 1 or more"):
        run("--dark", dark, "--white", white, "--lines", 0, "--out", out)
    with pytest.raises(InputError, match="exchanged"):
        run("--dark", white, "--white", dark, "--out", out)
    with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
        run("--dark", tmp_path / "nowhere.png", "--white", white, "--out", out)
    with pytest.raises(FlawlineError, match="cannot be written"):
        run("--dark", dark, "--white", white, "--out", tmp_path / "nowhere" / "camera.flat")
    assert not out.exists()
    out.write_bytes(b"something of value to somebody")
    with pytest.raises(InputError, match="no flat field"):
        run("--dark", dark, "--white", white, "--out", out)
    assert out.read_bytes() == b"something of value to somebody"


def test_command_takes_specs_longer_than_a_file_name(images, tmp_path):
    _, white = images
    spec = "video:nowhere?" + "&".join(f"feature.Feature{number}=1" for number in range(30))
    with pytest.raises(InputError, match=r"unknown parameter 'feature\.Feature0'"):
        run("--dark", spec, "--white", white, "--out", tmp_path / "camera.flat")
