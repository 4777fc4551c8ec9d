import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Loss, Status
from flawline.runtime.cameras.recording import INDEX, PIXELS, RecordingSource
from flawline.runtime.errors import InputError, ResourceError
from flawline.runtime.web.recorder import Recorded, Recorder

WIDTH, BLOCK = 24, 8


class Web:
    """An open source as far as a recorder looks at it, and the blocks that it would give."""

    spec = "web"
    width = WIDTH
    channels = 1
    block_lines = BLOCK
    line_rate = 2000.0

    def __init__(self, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)
        self.line = 0

    def block(self, lines: int = BLOCK) -> tuple[np.ndarray, BlockInfo]:
        info = BlockInfo(
            Status.OK,
            self.line,
            lines,
            self.line * 500_000,
            77,
            encoder=self.line * 3,
            encoder_end=(self.line + lines) * 3,
        )
        self.line += lines
        return self._generator.integers(0, 256, (lines, WIDTH), dtype=np.uint8), info


@pytest.fixture(autouse=True)
def _threads(no_thread_is_left):
    pass


@pytest.fixture
def slow_disk(monkeypatch) -> threading.Event:
    """A disk that takes nothing until the event is set."""
    event, write = threading.Event(), os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        if offset:  # the header is written at once
            assert event.wait(60)
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return event


def played(folder: Path) -> list[tuple[BlockInfo, np.ndarray | None]]:
    source = RecordingSource(folder)
    source.open()
    buffer, reads = np.zeros((BLOCK, WIDTH), np.uint8), []
    while (info := source.read(buffer, 0)).status is not Status.END:
        reads.append((info, buffer[: info.lines].copy() if info.status is Status.OK else None))
    source.close()
    return reads


def spans(folder: Path) -> list[tuple[str, int, int]]:
    """What is played as (status or reason, first line, line behind the last)."""
    return [
        (info.reason or info.status.value, info.first_line, info.first_line + info.lines) for info, _ in played(folder)
    ]


def test_everything_is_kept_with_its_metadata(tmp_path):
    web = Web()
    recorder = Recorder(tmp_path / "a" / "b", web, everything=True, blocks=50)
    blocks = [web.block(lines) for lines in (8, 8, 3, 8)]
    for pixels, info in blocks:
        recorder.add(pixels, info)
    assert recorder.close() == Recorded(4, 0, 0)
    assert recorder.close() == Recorded(4, 0, 0)
    reads = played(tmp_path / "a" / "b")
    assert [info._replace(arrival_time_ns=77) for info, _ in reads] == [info for _, info in blocks]
    for (pixels, _), (_, read) in zip(blocks, reads, strict=True):
        np.testing.assert_array_equal(read, pixels)


def test_blocks_around_a_defect_are_kept_past_and_to_come(tmp_path):
    web = Web()
    recorder = Recorder(tmp_path, web, margin_lines=10, blocks=50)
    for number in range(40):
        recorder.add(*web.block())
        if number == 20:  # its lines end at 168
            recorder.keep(130, 160)
    assert recorder.close() == Recorded(7, 0, 0)
    # Lines 120 to 170 and the blocks that they lie in.
    assert spans(tmp_path) == [("ok", 8 * number, 8 * number + 8) for number in range(15, 22)]


def test_defects_far_apart_leave_a_gap_that_says_why(tmp_path):
    web = Web()
    recorder = Recorder(tmp_path, web, margin_lines=0, blocks=50)
    for _ in range(10):
        recorder.add(*web.block())
    recorder.keep(64, 65)
    recorder.keep(17, 30)
    recorder.keep(16, 20)
    assert recorder.close() == Recorded(3, 0, 0)
    assert spans(tmp_path) == [("ok", 16, 24), ("ok", 24, 32), ("not_recorded", 32, 64), ("ok", 64, 72)]


def test_losses_are_recorded_with_their_reasons(tmp_path):
    web = Web()
    recorder = Recorder(tmp_path, web, everything=True)
    recorder.add(*web.block())
    recorder.lose(Loss(8, Counter({"incomplete": 5, "ring_drop_oldest": 16}), "a cable"))
    web.line = 29
    recorder.add(*web.block())
    recorder.close()
    assert spans(tmp_path) == [("ok", 0, 8), ("incomplete", 8, 13), ("ring_drop_oldest", 13, 29), ("ok", 29, 37)]
    assert [info.detail for info, _ in played(tmp_path)] == ["", "a cable", "", ""]


def test_web_lines_decide_and_not_those_of_the_camera(tmp_path):
    web = Web()
    recorder = Recorder(tmp_path, web, margin_lines=0)
    for number in range(6):
        recorder.add(*web.block(), web_line=1000 + 8 * number)
    recorder.lose(Loss(48, Counter({"lost": 4})), web_line=1048)
    recorder.keep(1008, 1015)
    recorder.keep(8, 15)
    recorder.keep(1048, 1048)
    assert recorder.close() == Recorded(1, 0, 0)
    assert spans(tmp_path) == [("ok", 8, 16), ("not_recorded", 16, 48), ("lost", 48, 52)]


def test_defect_older_than_the_buffers_is_counted(tmp_path):
    web = Web()
    recorder = Recorder(tmp_path, web, margin_lines=0, blocks=4)
    for _ in range(10):
        recorder.add(*web.block())
    recorder.keep(40, 55)
    assert recorder.close() == Recorded(written=1, dropped=1, failed=0)
    assert spans(tmp_path) == [("ok", 48, 56)]


def test_slow_disk_never_stalls_the_stream_and_drops_are_counted(tmp_path, slow_disk):
    web = Web()
    recorder = Recorder(tmp_path, web, everything=True, blocks=4)
    for _ in range(100):
        recorder.add(*web.block())  # would wait for ever if it waited for the disk
    assert recorder.recorded == Recorded(0, 96, 0)
    slow_disk.set()
    assert recorder.close() == Recorded(4, 96, 0)
    assert spans(tmp_path) == [("ok", 8 * number, 8 * number + 8) for number in range(4)]


def test_memory_is_bounded_when_only_losses_come(tmp_path, slow_disk):
    web = Web()
    recorder = Recorder(tmp_path, web, blocks=2)
    for line in range(10_000):
        recorder.lose(Loss(line, Counter({"lost": 1})))
    assert len(recorder._past) == 8
    recorder.keep(0, 100_000)
    for line in range(10_000, 11_000):
        recorder.lose(Loss(line, Counter({"lost": 1})))
    assert len(recorder._waiting) <= 8
    slow_disk.set()
    assert recorder.close() == Recorded()


def test_what_came_since_a_block_is_kept_whatever_its_place_on_the_web(tmp_path):
    web = Web()
    recorder = Recorder(tmp_path, web, margin_lines=0)
    numbers = [recorder.add(*web.block(), web_line=1 << 62) for _ in range(5)]
    recorder.lose(Loss(40, Counter({"lost": 8})), web_line=1 << 62)
    web.line = 48
    recorder.add(*web.block(), web_line=0)
    recorder.keep_since(numbers[3])
    assert recorder.close() == Recorded(3, 0, 0)
    assert spans(tmp_path) == [("ok", 24, 32), ("ok", 32, 40), ("lost", 40, 48), ("ok", 48, 56)]


def test_a_block_takes_no_longer_where_many_are_remembered(tmp_path):
    def seconds_per_block(blocks: int) -> float:
        web = Web()
        recorder = Recorder(tmp_path / str(blocks), web, blocks=blocks)
        pixels, info = web.block(1)
        for line in range(5 * blocks):
            recorder.add(pixels, info._replace(first_line=line))
        start = time.perf_counter()
        for line in range(5 * blocks, 5 * blocks + 500):
            recorder.add(pixels, info._replace(first_line=line))
        took = time.perf_counter() - start
        recorder.close()
        return took

    assert seconds_per_block(6000) < 6 * seconds_per_block(60)


def test_second_recording_in_a_folder_is_refused(tmp_path):
    Recorder(tmp_path, Web()).close()
    before = (tmp_path / INDEX).read_bytes()
    with pytest.raises(InputError, match="holds a recording already; choose another folder"):
        Recorder(tmp_path, Web())
    assert (tmp_path / INDEX).read_bytes() == before


def test_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: Not a directory|cannot be written: File exists"):
        Recorder(tmp_path / "file", Web())
    (tmp_path / PIXELS).mkdir()
    with pytest.raises(InputError, match=r"lines\.raw cannot be written"):
        Recorder(tmp_path, Web())
    assert not (tmp_path / INDEX).exists()


def test_senseless_and_too_large_buffers_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected 1 and 0 or more"):
        Recorder(tmp_path, Web(), blocks=0)
    with pytest.raises(InputError, match="expected 1 and 0 or more"):
        Recorder(tmp_path, Web(), margin_lines=-1)
    with pytest.raises(ResourceError, match="recorder of 1000000000000 blocks needs about"):
        Recorder(tmp_path, Web(), blocks=10**12)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import sys, time
from pathlib import Path
from tests_recorder import Web, played, Recorder
room, filler = Path(sys.argv[1]), Path(sys.argv[1]) / "filler"
web = Web()
recorder = Recorder(room / "r", web, everything=True, blocks=300)
def add(count):
    for _ in range(count):
        recorder.add(*web.block())
    while (now := recorder.recorded).written + now.failed < web.line // 8:
        time.sleep(0.001)
filler.write_bytes(bytes(40_000))
add(200)
full = recorder.recorded
assert full.failed > 0, full
filler.unlink()
add(50)
said = recorder.close()
print(full.written, full.failed, said.written, said.failed, said.dropped, recorder.error)
reads = played(room / "r")
pixels = {}
again = Web()
for _ in range(250):
    lines, info = again.block()
    pixels[info.first_line] = lines
for info, read in reads:
    if read is not None:
        assert (read == pixels[info.first_line]).all()
print(sum(read is not None for _, read in reads), reads[-1][0].first_line + 8)
"""


def test_full_disk_is_counted_and_the_recording_goes_on_when_there_is_room_again(tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    shutil.copy(__file__, tmp_path / "tests_recorder.py")
    # In a mount namespace of its own: no other process sees this disk, and it ends with the process.
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    mount += ['mount -t tmpfs -o size=80k none "$0" && exec "$@"', str(room)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, timeout=60).returncode:
        pytest.skip("this process may not mount a small file system")
    done = subprocess.run(
        [*mount, sys.executable, "-c", FULL_DISK, str(room)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    account, replayed = done.stdout.splitlines()
    written, failed, all_written, all_failed, dropped, *words = account.split()
    assert int(written) + int(failed) == 200
    assert (int(all_written), int(all_failed), int(dropped)) == (int(written) + 50, int(failed), 0)
    assert " ".join(words).endswith("r does not take a block: No space left on device")
    assert replayed == f"{all_written} 2000"
