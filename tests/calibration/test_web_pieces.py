"""Good web: what is read, and how it is split."""

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.calibration.web_flat_field import read_flat_field
from flawline.calibration.web_pieces import Piece, fingerprint, read_pieces, split_pieces
from flawline.runtime.errors import InputError
from flawline.runtime.images import write_image
from tests.calibration.conftest import web


def piece(lines, name="piece"):
    pixels = web(lines)
    return Piece(name, lambda: pixels, lines, 32, 1, f"hash of {name}")


def test_images_are_pieces_of_their_own(folder):
    pieces = read_pieces(str(folder))
    assert [(piece.name, piece.lines, piece.width, piece.channels) for piece in pieces] == [
        ("0.png", 40, 32, 1),
        ("1.png", 24, 32, 1),
        ("2.png", 33, 32, 1),
    ]
    np.testing.assert_array_equal(pieces[2].load(), web(33, seed=2))
    assert len({piece.sha256 for piece in pieces}) == 3


def test_one_image_is_one_piece(folder):
    (only,) = read_pieces(str(folder / "1.png"))
    assert only.lines == 24


def test_a_source_is_one_web(folder):
    (joined,) = read_pieces(f"replay:{folder}?block=7")
    np.testing.assert_array_equal(joined.load(), np.concatenate([piece.load() for piece in read_pieces(str(folder))]))
    assert (joined.lines, joined.width, joined.channels) == (97, 32, 1)


def test_webs_of_two_widths_are_refused_by_name(folder):
    write_image(folder / "3.png", web(20, width=40))
    with pytest.raises(InputError, match=r"3\.png has lines of 40 px in 1 channels, 0\.png of 32 px in 1; expected"):
        read_pieces(str(folder))


def test_grey_and_colour_are_refused(folder):
    write_image(folder / "3.png", web(20, channels=3))
    with pytest.raises(InputError, match="of 32 px in 3 channels"):
        read_pieces(str(folder))


@pytest.mark.parametrize("spec", ["nowhere", "replay:nowhere", "bluetooth:camera"])
def test_what_is_not_there_is_refused(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        read_pieces(spec)


@pytest.mark.parametrize("kind", ["pylon", "video"])
def test_a_spec_may_be_longer_than_a_file_name(kind):
    with pytest.raises(InputError):
        read_pieces(f"{kind}:nowhere?" + "&".join(f"feature.Feature{number}=1" for number in range(30)))


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ":y"])
def test_a_name_too_long_for_a_file_is_refused(name):
    with pytest.raises(InputError):
        read_pieces(name)


def test_a_folder_may_have_a_colon_in_its_name(folder):
    renamed = folder.rename(folder.parent / "shift:2")
    assert len(read_pieces(str(renamed))) == 3


@pytest.fixture(scope="module")
def flat_fields(tmp_path_factory):
    """Of stripes, by the width of the line."""
    return {width: read_flat_field(flat_field_of(tmp_path_factory.mktemp("flat"), width)) for width in (32, 33)}


def flat_field_of(folder, width):
    generator = np.random.default_rng(4)
    dark, white = generator.integers(0, 30, width), generator.integers(100, 250, width)
    for name, line in (("dark", dark), ("white", white)):
        write_image(folder / f"{name}.png", np.tile(line.astype(np.uint8), (64, 1)))
    references = ["--dark", str(folder / "dark.png"), "--white", str(folder / "white.png")]
    assert main(["camera", "flat-field", *references, "--out", str(folder / "camera.flat")]) == 0
    return folder / "camera.flat"


def test_a_flat_field_is_taken_out_of_every_image_as_the_stream_does_it(folder, flat_fields):
    flat_field = flat_fields[32]
    raw, corrected = read_pieces(str(folder)), read_pieces(str(folder), flat_field)
    (joined,) = read_pieces(f"replay:{folder}?block=7", flat_field)
    expected = [np.array(piece.load()) for piece in raw]
    for pixels in expected:
        flat_field.corrector((32,))(pixels)
    assert not np.array_equal(expected[0], raw[0].load())
    for piece, pixels in zip(corrected, expected, strict=True):
        np.testing.assert_array_equal(piece.load(), pixels)
        np.testing.assert_array_equal(piece.load(), pixels)
    np.testing.assert_array_equal(joined.load(), np.concatenate(expected))
    assert not {piece.sha256 for piece in raw} & {piece.sha256 for piece in corrected}


@pytest.mark.parametrize("prefix", ["", "replay:"])
def test_a_flat_field_of_other_lines_is_refused(folder, flat_fields, prefix):
    with pytest.raises(InputError, match="the flat field is of lines of 33 px grey, the camera's are of 32 px grey"):
        read_pieces(prefix + str(folder), flat_fields[33])


def lines_of(pieces):
    return sum(piece.lines for piece in pieces)


def test_whole_pieces_are_held_out_where_there_are_many():
    pieces = [piece(64, str(number)) for number in range(20)]
    fitted, held_out = split_pieces(pieces, 32, false_reject_rate=0.1, seed=0)
    assert sorted((*fitted, *held_out), key=pieces.index) == pieces
    # 9 strips of 40 are needed: five pieces of two.
    assert len(held_out) == 5


def test_a_fifth_is_held_out_where_that_is_more():
    fitted, held_out = split_pieces([piece(64, str(n)) for n in range(40)], 32, false_reject_rate=0.5, seed=1)
    assert (len(fitted), len(held_out)) == (32, 8)


def test_one_long_web_is_cut_into_stretches_of_whole_strips():
    long = piece(1000)
    fitted, held_out = split_pieces([long], 32, false_reject_rate=0.2, seed=0)
    parts = [*fitted, *held_out]
    assert lines_of(parts) == 1000
    assert sorted(part.lines for part in parts)[1:] == [96] * 10
    # Which lines they are is in their names, and what they load is that.
    pixels = long.load()
    for part in parts:
        start = int(part.name.split("lines ")[1].split(" to ")[0])
        assert start % 96 == 0
        np.testing.assert_array_equal(part.load(), pixels[start : start + part.lines])
    assert len({part.sha256 for part in parts}) == len(parts)


def test_one_long_piece_among_short_ones_is_not_held_out_whole():
    pieces = [piece(3200, "long"), *(piece(32, str(number)) for number in range(10))]
    for seed in range(10):
        fitted, held_out = split_pieces(pieces, 32, false_reject_rate=0.1, seed=seed)
        assert lines_of(held_out) < lines_of(fitted)


def test_the_split_follows_its_seed():
    pieces = [piece(64, str(number)) for number in range(20)]
    splits = [split_pieces(pieces, 32, false_reject_rate=0.1, seed=seed)[1] for seed in (3, 3, 4)]
    assert splits[0] == splits[1] != splits[2]
    assert fingerprint(splits[0]) == fingerprint(splits[1][::-1]) != fingerprint(splits[2])


@pytest.mark.parametrize(
    ("strips", "rate", "message"),
    [
        (20, 0.05, r"needs 19 held-out strips, but no more than half; the smallest rate that can be had is 0\.09091"),
        (3, 0.1, r"the smallest rate that can be had is 0\.5"),
        (1, 0.5, "that is too little"),
    ],
)
def test_too_little_web_is_refused_with_what_would_do(strips, rate, message):
    with pytest.raises(InputError, match=message):
        split_pieces([piece(32, str(number)) for number in range(strips)], 32, false_reject_rate=rate, seed=0)


def test_the_smallest_rate_that_was_told_can_be_had():
    pieces = [piece(32, str(number)) for number in range(20)]
    fitted, held_out = split_pieces(pieces, 32, false_reject_rate=1 / 11, seed=0)
    assert (len(fitted), len(held_out)) == (10, 10)
