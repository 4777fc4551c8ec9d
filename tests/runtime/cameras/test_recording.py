import json
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Loss, Status, line_shape, open_source, require_encoder
from flawline.runtime.cameras.recording import INDEX, PIXELS, RecordingSource, open_replay
from flawline.runtime.cameras.replay import ReplayOptions, ReplaySource
from flawline.runtime.errors import InputError
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.ring import Block, Ring
from flawline.runtime.web.odometer import Odometer
from flawline.runtime.web.recorder import Recorder

BLOCK = 8


class ScriptedCamera:
    """Gives the reads of a script with random pixels, then END."""

    spec = "scripted"
    line_rate = None

    def __init__(self, script: list[BlockInfo], channels: int = 1) -> None:
        self.width, self.channels, self.block_lines = 24, channels, BLOCK
        self.counters = {"lines_sent": 0}
        self._script = iter(script)
        self._generator = np.random.default_rng(6)

    def open(self) -> None:
        pass

    def read(self, into: np.ndarray, timeout_s: float) -> BlockInfo:
        info = next(self._script, BlockInfo(Status.END))
        if info.status is Status.OK:
            into[: info.lines] = self._generator.integers(0, 256, (info.lines, *line_shape(self)))
        return info

    def close(self) -> None:
        pass


def streamed(source, recorder: Recorder | None = None) -> tuple[list, Odometer]:
    """What the consumer of a ring sees of a source: (numbers, pixels, stretch of new web), and losses."""
    ring = Ring(1000, (source.block_lines, *line_shape(source)), "block")
    Acquisition(source, ring, threading.Event()).run()
    odometer, seen = Odometer(mm_per_count=0.01), []
    while (item := ring.take()) is not None:
        if isinstance(item, Loss):
            if recorder is not None:
                recorder.lose(item, odometer.next_line)
            seen.append((item.first_line, dict(item.reasons), item.detail))
        else:
            assert isinstance(item, Block)
            if recorder is not None:
                recorder.add(item.pixels, item.info, odometer.next_line)
            stretch = odometer.locate(item.info)
            seen.append((item.info._replace(arrival_time_ns=0), item.pixels.tobytes(), stretch))
            ring.release(item)
    return seen, odometer


def script() -> list[BlockInfo]:
    """A web with losses of three kinds, a skip without a word, uneven speed, and a reversal."""
    generator = np.random.default_rng(2)
    reads, line, count = [], 5, 4_294_967_000
    for number in range(60):
        lines = int(generator.integers(1, BLOCK + 1))
        step = int(generator.integers(5, 12)) * (-1 if 20 <= number < 26 else 1)
        kind = generator.choice(["ok"] * 6 + ["incomplete", "lost", "skip"])
        if kind == "ok":
            end = count + step * lines
            reads.append(
                BlockInfo(Status.OK, line, lines, line * 1000 + 7, 1, encoder=count % 2**32, encoder_end=end % 2**32)
            )
        elif kind != "skip":
            reads.append(BlockInfo(Status(str(kind)), line, lines, reason=f"the_{kind}", detail=f"block {number}"))
        line, count = line + lines, count + step * lines
    return reads


@pytest.mark.parametrize("channels", [1, 3])
def test_recording_plays_as_the_stream_was_bit_for_bit(tmp_path, channels):
    camera = ScriptedCamera(script(), channels)
    recorder = Recorder(tmp_path, camera, everything=True, blocks=100)
    first, odometer = streamed(camera, recorder)
    assert recorder.close().dropped == 0
    assert odometer.reversed_lines > 10
    assert odometer.missing_lines > 10
    with closing(open_replay(str(tmp_path), ReplayOptions(), "")) as source:
        source.open()
        assert (source.width, source.channels, source.block_lines) == (24, channels, BLOCK)
        require_encoder(source)
        second, again = streamed(source)
    assert second == first
    for name in ("next_line", "reversed_lines", "repeated_lines", "missing_lines"):
        assert getattr(again, name) == getattr(odometer, name)
    last = odometer.next_line
    assert again.millimetres(last) == odometer.millimetres(last)


def test_pieces_play_with_the_numbers_of_the_whole(tmp_path):
    camera = ScriptedCamera([BlockInfo(Status.OK, 8 * number, 8, number) for number in range(40)])
    recorder = Recorder(tmp_path, camera, margin_lines=8, blocks=100)
    whole, _ = [], buffer = [], np.zeros((BLOCK, 24), np.uint8)
    while (info := camera.read(buffer, 0)).status is Status.OK:
        recorder.add(buffer, info)
        whole.append(buffer.copy())
    recorder.keep(200, 210)
    recorder.keep(40, 47)
    recorder.close()
    with closing(RecordingSource(tmp_path)) as source:
        source.open()
        reads = []
        while (info := source.read(buffer, 0)).status is not Status.END:
            reads.append((info.status, info.first_line, info.lines, info.reason))
            if info.status is Status.OK:
                np.testing.assert_array_equal(buffer, whole[info.first_line // 8])
                assert info.camera_time_ns == info.first_line // 8
                assert abs(info.arrival_time_ns - time.monotonic_ns()) < 60e9
        assert source.counters == {
            "lines_sent": sum(read[2] for read in reads),
            "blocks_played": 7,
            "blocks_damaged": 0,
        }
    first = [(Status.OK, line, 8, "") for line in (32, 40, 48)]
    second = [(Status.OK, line, 8, "") for line in (192, 200, 208, 216)]
    assert reads == [*first, (Status.LOST, 56, 136, "not_recorded"), *second]


@pytest.fixture
def recording(tmp_path) -> Path:
    """Blocks of lines 0 to 8 and 8 to 16, a loss of 4, and a block of 3."""
    folder = tmp_path / "recording"
    camera = ScriptedCamera([BlockInfo(Status.OK, line, lines) for line, lines in ((0, 8), (8, 8), (20, 3))])
    recorder = Recorder(folder, camera, everything=True)
    buffer = np.zeros((BLOCK, 24), np.uint8)
    for _ in range(2):
        recorder.add(buffer, camera.read(buffer, 0))
    recorder.lose(Loss(16, Counter({"lost": 4})))
    info = camera.read(buffer, 0)
    recorder.add(buffer[:3], info)
    recorder.close()
    return folder


def reads_of(folder: Path) -> list[tuple[int, int, str]]:
    with closing(RecordingSource(folder)) as source:
        source.open()
        buffer, reads = np.zeros((BLOCK, 24), np.uint8), []
        while (info := source.read(buffer, 0)).status is not Status.END:
            reads.append((info.first_line, info.lines, info.reason or info.status.value))
        return reads


WHOLE = [(0, 8, "ok"), (8, 8, "ok"), (16, 4, "lost"), (20, 3, "ok")]


def test_damaged_pixels_are_a_gap_and_the_rest_is_played(recording):
    data = bytearray((recording / PIXELS).read_bytes())
    data[8 * 24 + 5] ^= 1
    (recording / PIXELS).write_bytes(data)
    assert reads_of(recording) == [WHOLE[0], (8, 8, "damaged_recording"), *WHOLE[2:]]


def test_entry_that_a_crash_cut_off_is_ignored(recording):
    index = (recording / INDEX).read_bytes()
    for cut in (1, 5, 30):
        (recording / INDEX).write_bytes(index[:-cut])
        assert reads_of(recording) == WHOLE[:3]


def test_order_of_the_file_does_not_matter(recording):
    header, *entries = (recording / INDEX).read_bytes().splitlines(keepends=True)
    (recording / INDEX).write_bytes(header + b"".join(reversed(entries)))
    assert reads_of(recording) == WHOLE


def test_index_that_changes_while_it_is_played_is_refused(recording):
    with closing(RecordingSource(recording)) as source:
        source.open()
        (recording / INDEX).write_bytes(b"x" * 10_000)
        with pytest.raises(InputError, match="which changed"):
            source.read(np.zeros((BLOCK, 24), np.uint8), 0)


def changed(line: int, **fields):
    def change(folder: Path) -> None:
        lines = (folder / INDEX).read_bytes().splitlines()
        entry = json.loads(lines[line]) | fields
        lines[line] = json.dumps({name: value for name, value in entry.items() if value != "remove"}).encode()
        (folder / INDEX).write_bytes(b"\n".join(lines) + b"\n")

    return change


def written(data: bytes):
    return lambda folder: (folder / INDEX).write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (written(b""), "line 1: Input data was truncated; expected a recording"),
        (written(b"\xff\xfe\n"), "line 1: "),
        (written(b"[" * 60_000 + b"\n"), "line 1: "),
        (changed(0, recording=2), "line 1: Invalid enum value 2"),
        (changed(0, width=0), "line 1: lines of 0 px"),
        (changed(0, width=1 << 40), "line 1: lines of 1099511627776 px"),
        (changed(0, block_lines=0), "line 1: lines of 24 px in blocks of 0"),
        (changed(0, channels=2), "line 1: Invalid enum value 2"),
        (changed(0, surprise=1), "line 1: Object contains unknown field `surprise`"),
        (
            changed(0, width=4000),
            "line 2: 8 lines up to byte 32000 of 456, in blocks of 8; expected what lines.raw holds",
        ),
        (changed(0, block_lines=4), "line 2: 8 lines up to byte 192 of 456, in blocks of 4"),
        (changed(2, offset=-1), "line 3: offset -1"),
        (changed(2, offset=1 << 70), "line 3: "),
        (changed(2, offset=10_000), "line 3: 8 lines up to byte 10192 of 456"),
        (changed(2, offset=None), "line 3: a block without pixels"),
        (changed(2, crc32="remove"), "line 3: a block without pixels"),
        (changed(3, offset=0, crc32=0), "line 4: a block without pixels, or a loss with them"),
        (changed(3, status="incomplete"), "line 4: Invalid enum value 'incomplete'"),
        (changed(3, lines=0), "line 4: no lines"),
        (changed(3, lines=-4), "line 4: lines -4"),
        (changed(3, lines=4.5), "line 4: Expected `int`, got `float`"),
        (changed(2, encoder=5), "line 3: one encoder count of two"),
        (changed(2, first_line=7), "block 1 begins at line 7, which was there before; expected rising lines"),
        (changed(2, number=0), "which was there before"),
        (changed(2, number="remove"), "line 3: Object missing required field `number`"),
        (changed(3, detail="x" * 70_000), "line 4 is longer than 65536 bytes"),
        (lambda folder: (folder / PIXELS).unlink(), r"lines.raw cannot be read: No such file"),
        (lambda folder: (folder / PIXELS).write_bytes(bytes(100)), "up to byte 192 of 100.*truncated"),
    ],
)
def test_hostile_recording_is_refused(recording, spoil, message):
    spoil(recording)
    with closing(RecordingSource(recording)) as source, pytest.raises(InputError, match=message) as raised:
        source.open()
    assert "\n" not in str(raised.value)


def test_line_rate_is_kept_and_slow_lines_time_out(recording):
    with closing(RecordingSource(recording, line_rate=400)) as source:
        source.open()
        buffer = np.zeros((BLOCK, 24), np.uint8)
        start = time.monotonic()
        assert source.read(buffer, 0.001).status is Status.TIMEOUT
        lines = 0
        while (info := source.read(buffer, 1)).status is not Status.END:
            lines += info.lines if info.status is Status.OK else 0
            assert time.monotonic() - start >= lines / 400 - 0.001
        assert lines == 19


def test_replay_of_a_folder_with_a_recording_plays_it(recording):
    with closing(open_source(f"replay:{recording}?line_rate=100000")) as source:
        assert isinstance(source, RecordingSource)
        assert source.line_rate == 100_000
        assert source.read(np.zeros((BLOCK, 24), np.uint8), 1).lines == 8
    with pytest.raises(InputError, match="for a recording; expected line_rate alone"):
        open_source(f"replay:{recording}?block=32")


def test_recording_without_counts_is_refused_where_an_encoder_is_needed(recording):
    with closing(open_source(f"replay:{recording}")) as source:
        with pytest.raises(InputError, match="gives no encoder counts") as raised:
            require_encoder(source)
        assert "\n" not in str(raised.value)


def test_folder_of_images_is_still_one_of_images(tmp_path, recording):
    assert isinstance(open_replay(str(tmp_path), ReplayOptions(), ""), ReplaySource)
    assert isinstance(open_replay(str(recording), ReplayOptions(line_rate=5), ""), RecordingSource)


@pytest.mark.parametrize("options", [ReplayOptions(block=32), ReplayOptions(loop=2), ReplayOptions(loop="forever")])
def test_other_blocks_than_the_recorded_are_refused(recording, options):
    with pytest.raises(InputError, match="for a recording; expected line_rate alone"):
        open_replay(str(recording), options, f"replay:{recording}")
