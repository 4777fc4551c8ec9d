"""Good web from sources: gaps, silence, and what an encoder says is no new web."""

import time

import numpy as np
import pytest

from flawline.calibration import web_source
from flawline.calibration.web_pieces import read_pieces
from flawline.calibration.web_source import take_stretches
from flawline.runtime.cameras import BlockInfo, Status, open_source
from flawline.runtime.errors import InputError
from flawline.runtime.images import write_image
from flawline.runtime.web.recorder import Recorder
from tests.calibration.conftest import web


def test_a_gap_divides_a_source(folder, monkeypatch):
    write_image(folder / "3.png", web(50, seed=3))

    def open_then_break(spec):
        source = open_source(spec)
        (folder / "2.png").write_bytes(b"no image any more")
        return source

    monkeypatch.setattr(web_source, "open_source", open_then_break)
    pieces = read_pieces(f"replay:{folder}?block=8")
    assert [piece.lines for piece in pieces] == [64, 50]
    np.testing.assert_array_equal(pieces[1].load(), web(50, seed=3))


def test_no_more_than_so_many_lines_are_taken_from_a_source(folder, monkeypatch):
    monkeypatch.setattr(web_source, "MOST_LINES", 64)
    (joined,) = read_pieces(f"replay:{folder}?block=8&loop=forever")
    assert joined.lines == 64


class Camera:
    """Gives blocks of 8 lines as they are told, and then what a camera gives for ever that is gone or whose web stands."""

    spec, width, channels, block_lines, line_rate = "camera", 32, 1, 8, 1000.0

    def __init__(self, blocks, then):
        self.blocks, self.then, self.line, self.pixels = list(blocks), then, 0, []

    def read(self, into, timeout_s):
        kind = self.blocks.pop(0) if self.blocks else self.then
        if kind is Status.TIMEOUT:
            time.sleep(timeout_s / 50)
            return BlockInfo(kind)
        if kind is Status.END:
            return BlockInfo(kind)
        status, counts = kind if isinstance(kind, tuple) else (kind, (None, None))
        if status is Status.LOST:
            time.sleep(0.005)
        else:
            into[:] = web(8, seed=self.line)
            self.pixels.append(into.copy())
        info = BlockInfo(status, self.line, 8, encoder=counts[0], encoder_end=counts[1])
        self.line += 8
        return info

    def close(self):
        pass


OK, LOST, TIMEOUT, END = Status.OK, Status.LOST, Status.TIMEOUT, Status.END


@pytest.fixture
def take(monkeypatch):
    """Takes what a camera gives; its pixels, the stretches, and what is said of them."""
    monkeypatch.setattr(web_source, "SILENCE_S", 0.1)

    def take(blocks, then=END):
        camera, said = Camera(blocks, then), []
        monkeypatch.setattr(web_source, "open_source", lambda spec: camera)
        stretches = take_stretches("camera", None, said.append)
        return camera.pixels, stretches, said

    return take


@pytest.mark.parametrize("then", [LOST, TIMEOUT])
def test_what_came_before_a_camera_was_gone_is_kept_and_told(take, then):
    pixels, stretches, said = take([OK, OK, LOST, OK], then)
    assert [len(lines) for lines in stretches] == [16, 8]
    np.testing.assert_array_equal(np.concatenate(stretches), np.concatenate(pixels))
    assert said == ["camera: no new web for 0 s: going on with the 24 lines that came before"]


@pytest.mark.parametrize("then", [LOST, TIMEOUT])
def test_a_camera_that_gives_nothing_is_refused(take, then):
    with pytest.raises(InputError, match="source 'camera' gave no line for 0 s; expected good web"):
        take([], then)


def test_a_web_that_stands_for_ever_ends_the_taking(take):
    _, stretches, said = take([(OK, (0, 80)), (OK, (80, 160))], (OK, (160, 160)))
    assert [len(lines) for lines in stretches] == [16]
    assert len(said) == 2


def test_a_source_whose_blocks_take_longer_than_the_silence_is_waited_for(folder, monkeypatch):
    monkeypatch.setattr(web_source, "SILENCE_S", 0.01)
    monkeypatch.setattr(web_source, "_READ_TIMEOUT_S", 0.05)
    (joined,) = read_pieces(f"replay:{folder}?block=97&line_rate=200")
    assert joined.lines == 97


def test_web_that_ran_back_or_stood_by_the_encoder_is_not_taken(take):
    forward = [(OK, (count, count + 80)) for count in range(0, 320, 80)]
    back = [(OK, (320, 240)), (OK, (240, 160)), (OK, (160, 160))]
    again = [(OK, (160, 240)), (OK, (240, 320)), (OK, (320, 400)), (OK, (400, 480))]
    pixels, stretches, said = take([*forward, *back, *again])
    # It goes on without a seam.
    (lines,) = stretches
    np.testing.assert_array_equal(lines, np.concatenate([*pixels[:4], *pixels[9:]]))
    assert len(said) == 1
    assert "16 lines ran back, 24 stood or had been seen" in said[0]


def test_lines_lost_while_the_web_ran_back_are_no_gap_and_others_are(take):
    blocks = [(OK, (0, 80)), (OK, (80, 160)), (OK, (160, 80)), LOST, (OK, (80, 160)), (OK, (160, 240))]
    _, stretches, _ = take([*blocks, LOST, (OK, (320, 400))])
    assert [len(lines) for lines in stretches] == [24, 8]


def test_an_encoder_that_only_counts_down_is_refused_with_what_it_did(take):
    with pytest.raises(
        InputError, match="gave 16 lines, of which none is web that ran forwards by its encoder \\(16 lines ran back"
    ):
        take([(OK, (160, 80)), (OK, (80, 0))])


def test_a_recording_of_a_web_that_ran_back_is_fitted_without_what_was_seen_twice(tmp_path):
    pixels, camera = web(48), Camera([], END)
    with_counts = zip((0, 80, 160, 80, 160, 240), (80, 160, 80, 160, 240, 320), strict=True)
    recorder = Recorder(tmp_path / "recording", camera, everything=True, blocks=16)
    for number, (begin, end) in enumerate(with_counts):
        block = pixels[8 * number : 8 * number + 8]
        recorder.add(block, BlockInfo(OK, 8 * number, 8, encoder=begin, encoder_end=end), 8 * number)
    recorder.close()
    (piece,) = read_pieces(f"replay:{tmp_path / 'recording'}")
    np.testing.assert_array_equal(piece.load(), np.concatenate([pixels[:16], pixels[32:]]))
