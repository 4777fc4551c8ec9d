import math
from itertools import pairwise

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.errors import InputError
from flawline.runtime.web import odometer as module
from flawline.runtime.web.odometer import Missing, Odometer, Stretch


class Feed:
    """Numbers blocks for an odometer as an encoder would; `raw` is what the encoder's register holds."""

    def __init__(self, odometer: Odometer, raw: int = 0) -> None:
        self.odometer = odometer
        self.line = 0
        self.raw = raw

    def block(self, lines: int, counts: int, *, lost: int = 0, raw: int | None = None) -> Stretch | None:
        self.line += lost
        begin = self.raw if raw is None else raw
        info = BlockInfo(Status.OK, self.line, lines, encoder=begin % 2**32, encoder_end=(begin + counts) % 2**32)
        self.line += lines
        self.raw += counts
        return self.odometer.locate(info)


def triggered(**options) -> Odometer:
    return Odometer(mm_per_count=0.01, counts_per_line=10, **options)


def free(**options) -> Odometer:
    return Odometer(mm_per_count=0.01, **options)


def test_without_an_encoder_web_lines_are_camera_lines():
    odometer = Odometer(mm_per_line=0.1)
    assert odometer.locate(BlockInfo(Status.OK, 7, 8)) == Stretch(slice(0, 8), 7)
    assert odometer.lost(15, 5) == Missing(15, 5)
    assert odometer.locate(BlockInfo(Status.OK, 20, 8)) == Stretch(slice(0, 8), 20)
    assert odometer.missing_lines == 5
    assert odometer.next_line == 28
    assert odometer.millimetres(28) == pytest.approx(2.8)


@pytest.mark.parametrize("make", [triggered, free])
@pytest.mark.parametrize("start", [0, 12345, 2**32 - 300])
def test_reversal_goes_on_without_a_seam(make, start):
    feed = Feed(make(), start)
    assert feed.block(64, 640) == Stretch(slice(0, 64), 0)
    assert feed.block(20, -200) is None
    assert feed.block(30, -300) is None
    assert feed.block(40, 400) is None
    assert feed.block(64, 640) == Stretch(slice(10, 64), 64)
    assert feed.block(64, 640) == Stretch(slice(0, 64), 118)
    odometer = feed.odometer
    assert (odometer.reversed_lines, odometer.repeated_lines, odometer.missing_lines) == (50, 50, 0)
    assert odometer.millimetres(118) == pytest.approx(11.8)


@pytest.mark.parametrize("make", [triggered, free])
def test_lost_lines_shift_the_position(make):
    feed = Feed(make())
    feed.block(64, 640)
    assert feed.odometer.lost(64, 100) == Missing(64, 100)
    feed.raw += 1000
    assert feed.block(64, 640, lost=100) == Stretch(slice(0, 64), 164)
    assert feed.odometer.missing_lines == 100
    assert feed.odometer.millimetres(164) == pytest.approx(16.4)
    assert feed.odometer.millimetres(114) == pytest.approx(11.4)


@pytest.mark.parametrize("make", [triggered, free])
def test_lines_lost_on_the_way_back_are_no_gap_of_the_web(make):
    feed = Feed(make())
    feed.block(64, 640)
    feed.block(16, -160)
    assert feed.odometer.lost(80, 20) is None
    feed.raw -= 200
    assert feed.block(10, -100, lost=20) is None
    assert feed.block(64, 640) == Stretch(slice(46, 64), 64)
    assert feed.odometer.missing_lines == 0


@pytest.mark.parametrize("make", [triggered, free])
def test_lines_lost_while_web_is_covered_again_miss_only_what_is_new(make):
    feed = Feed(make())
    feed.block(64, 640)
    feed.block(30, -300)
    feed.raw += 500
    assert feed.block(8, 80, lost=50) == Stretch(slice(0, 8), 84)
    assert feed.odometer.missing_lines == 20
    assert feed.odometer.millimetres(84) == pytest.approx(8.4)


def test_web_that_begins_backwards_is_new_when_it_comes_again():
    feed = Feed(free())
    assert feed.block(10, -100) is None
    assert feed.block(10, 100) == Stretch(slice(0, 10), 0)
    assert feed.odometer.millimetres(0) == 0
    assert feed.odometer.millimetres(10) == pytest.approx(1)


def test_standing_web_is_not_inspected_twice():
    feed = Feed(free())
    feed.block(10, 100)
    assert feed.block(10, 0) is None
    assert feed.block(10, 100) == Stretch(slice(0, 10), 10)
    assert feed.odometer.repeated_lines == 10


def test_missed_triggers_are_missing_lines():
    feed = Feed(triggered())
    feed.block(64, 640)
    feed.raw += 50
    assert feed.block(64, 640) == Stretch(slice(0, 64), 69)
    assert feed.odometer.missing_lines == 5


def test_jitter_of_the_encoder_cuts_nothing_and_does_not_add_up():
    generator = np.random.default_rng(3)
    odometer, line = triggered(), 0
    for _ in range(1000):
        begin, end = (10 * edge + int(generator.integers(-4, 5)) for edge in (line, line + 16))
        assert odometer.locate(BlockInfo(Status.OK, line, 16, encoder=begin, encoder_end=end)) == Stretch(
            slice(0, 16), line
        )
        line += 16
    assert (odometer.missing_lines, odometer.repeated_lines) == (0, 0)


@pytest.mark.parametrize("make", [triggered, free])
def test_an_hour_at_20_khz_does_not_drift(make):
    feed = Feed(make(), 2**32 - 5)
    blocks, lines = 2250, 32_000
    for number in range(blocks):
        assert feed.block(lines, 10 * lines) == Stretch(slice(0, lines), number * lines)
    assert feed.odometer.next_line == 72_000_000
    assert feed.odometer.millimetres(72_000_000) == pytest.approx(7_200_000, rel=1e-12)
    assert feed.odometer.encoder_faults == 0


@pytest.mark.parametrize("make", [triggered, lambda: free(fastest_counts_per_line=20)])
def test_one_wild_count_is_bridged_and_the_next_believed(make):
    feed = Feed(make())
    feed.block(64, 640)
    assert feed.block(64, 640, raw=90_000_000) == Stretch(slice(0, 64), 64)
    assert feed.block(64, 640) == Stretch(slice(0, 64), 128)
    odometer = feed.odometer
    assert (odometer.encoder_faults, odometer.encoder_resets) == (1, 0)
    assert odometer.millimetres(192) == pytest.approx(19.2)


@pytest.mark.parametrize("make", [triggered, lambda: free(fastest_counts_per_line=20)])
def test_wild_count_at_the_end_of_a_block_is_bridged(make):
    feed = Feed(make())
    feed.block(64, 640)
    line = feed.line
    info = BlockInfo(Status.OK, line, 64, encoder=640, encoder_end=2**31 + 7)
    assert feed.odometer.locate(info) == Stretch(slice(0, 64), 64)
    feed.line, feed.raw = line + 64, 1280
    assert feed.block(64, 640) == Stretch(slice(0, 64), 128)
    assert feed.odometer.encoder_faults == 1


@pytest.mark.parametrize("make", [triggered, lambda: free(fastest_counts_per_line=20)])
def test_counter_set_anew_is_found_and_the_web_goes_on(make):
    feed = Feed(make(), 5_000_000)
    feed.block(64, 640)
    feed.raw = 0
    for number in range(1, 6):
        assert feed.block(64, 640) == Stretch(slice(0, 64), 64 * number)
    odometer = feed.odometer
    assert (odometer.encoder_faults, odometer.encoder_resets) == (1, 1)
    assert odometer.millimetres(64 * 6) == pytest.approx(38.4)


def test_missing_counts_are_bridged():
    feed = Feed(triggered())
    feed.block(64, 640)
    assert feed.odometer.locate(BlockInfo(Status.OK, 64, 64)) == Stretch(slice(0, 64), 64)
    feed.line, feed.raw = 128, 1280
    assert feed.block(64, 640) == Stretch(slice(0, 64), 128)
    assert feed.odometer.encoder_faults == 1


def test_stream_without_an_encoder_is_refused_when_one_is_expected():
    with pytest.raises(InputError, match="line 0 has no encoder count; expected one: give millimetres per line"):
        triggered().locate(BlockInfo(Status.OK, 0, 8))


def test_block_from_the_past_is_ignored():
    odometer = triggered()
    odometer.locate(BlockInfo(Status.OK, 0, 8, encoder=0, encoder_end=80))
    assert odometer.locate(BlockInfo(Status.OK, 4, 8, encoder=40, encoder_end=120)) is None
    assert odometer.next_line == 8


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mm_per_line": 0.1, "mm_per_count": 0.1},
        {"mm_per_line": 0.1, "counts_per_line": 4},
        {"mm_per_line": 0.0},
        {"mm_per_line": -1.0},
        {"mm_per_line": math.nan},
        {"mm_per_count": math.inf},
        {"mm_per_count": 0.1, "counts_per_line": 0},
        {"mm_per_count": 0.1, "fastest_counts_per_line": 0},
    ],
)
def test_senseless_pitches_are_refused(options):
    with pytest.raises(InputError, match="expected"):
        Odometer(**options)


def test_memory_is_bounded_and_recent_positions_stay_exact(monkeypatch):
    monkeypatch.setattr(module, "ANCHORS", 16)
    feed = Feed(free())
    ends = [0]
    for number in range(200):
        feed.block(8, 40 + 8 * (number % 5))
        ends.append(feed.raw)
    assert len(feed.odometer._anchors._lines) <= 2 * 16 + 1
    for number in range(185, 201):
        assert feed.odometer.millimetres(8 * number) == pytest.approx(0.01 * ends[number])


@pytest.mark.parametrize("counts_per_line", [None, 10])
@pytest.mark.parametrize("seed", range(100))
def test_random_walk_with_losses_places_every_row_where_it_was(counts_per_line, seed):
    generator = np.random.default_rng(seed)
    odometer = Odometer(mm_per_count=0.01, counts_per_line=counts_per_line)
    start = int(generator.integers(0, 2**32))
    camera_line = at = 0  # counts
    front = origin = None
    previous_end = 0
    for _ in range(300):
        lines = int(generator.integers(1, 20))
        step = 10 if counts_per_line else int(generator.integers(6, 14))
        step *= int(generator.choice([1, 1, 1, -1]))
        begin, end = at, at + step * lines
        at, camera_line = end, camera_line + lines
        if generator.random() < 0.15:
            continue  # lost
        counts = {"encoder": (start + begin) % 2**32, "encoder_end": (start + end) % 2**32}
        front = begin if front is None else front
        stretch = odometer.locate(BlockInfo(Status.OK, camera_line - lines, lines, **counts))
        if origin is None and step < 0:
            front = end
        elif origin is None:
            origin, front = front, front
        if stretch is None:
            assert step < 0 or end <= front + step / 2
            continue
        assert step > 0
        assert stretch.first_line >= previous_end
        assert begin + step * stretch.rows.start >= front - step / 2
        for row in (stretch.rows.start, lines - 1):
            web_line = stretch.first_line + row - stretch.rows.start
            assert (
                abs(odometer.millimetres(web_line) * 100 - (begin + step * row - origin)) <= 13 / 2 + 1
            )  # half of the longest line
        front, previous_end = end, stretch.first_line + lines - stretch.rows.start
    assert odometer.encoder_faults == 0
    assert odometer.reversed_lines > 100
    assert odometer.next_line == previous_end


# A printed target: marks at known millimetres, seen by a camera whose lines are simulated one by one.

MM_PER_COUNT = 0.01
MARKS_MM = np.array([3.0, 11.3, 19.05, 27.77, 38.5, 51.2, 66.6, 80.1, 97.4])
MARK_MM = 0.8


def positions_of_lines(fine_mm: np.ndarray, counts_per_line: int | None, rate_step: int) -> np.ndarray:
    """Where each line begins, from the web's position at every instant: by the clock or by the encoder."""
    if counts_per_line is None:
        return fine_mm[::rate_step]
    # A trigger each time that the web crosses a multiple of the pitch, in either direction.
    cells = np.floor(fine_mm / (MM_PER_COUNT * counts_per_line)).astype(int)
    crossings = np.flatnonzero(np.diff(cells))
    steps = np.maximum(cells[crossings], cells[crossings + 1])
    return np.concatenate([[0.0], steps * MM_PER_COUNT * counts_per_line])


def line_values(begins_mm: np.ndarray, ends_mm: np.ndarray) -> np.ndarray:
    """Share of each line that is a mark."""
    low, high = np.minimum(begins_mm, ends_mm)[:, None], np.maximum(begins_mm, ends_mm)[:, None]
    overlap = np.minimum(high, MARKS_MM + MARK_MM) - np.maximum(low, MARKS_MM)
    return np.clip(overlap, 0, None).sum(axis=1) / np.maximum(high - low, 1e-9)[:, 0]


def blocks_of(counts: np.ndarray, block_lines: int):
    """Ranges of lines of one direction, as a source has to cut them."""
    start, signs = 0, np.sign(np.diff(counts))
    for line in range(1, len(counts) - 1):
        turned = signs[start:line].any() and signs[line] * signs[start:line].sum() < 0
        if line - start == block_lines or turned:
            yield start, line
            start = line
    yield start, len(counts) - 1


@pytest.mark.parametrize("counts_per_line", [None, 5, 10])
@pytest.mark.parametrize("block_lines", [1, 7, 32])
def test_printed_target_with_varying_speed_and_a_reversal_is_placed_within_a_line(counts_per_line, block_lines):
    instants = np.arange(0, 1.4, 5e-6)
    # mm/s: starts, runs unevenly, stops at 0.6 s, runs 9 mm back, and on again.
    speed = np.interp(
        instants, [0, 0.1, 0.3, 0.5, 0.6, 0.65, 0.7, 0.75, 0.85, 1.4], [20, 90, 60, 100, 0, -120, -60, 0, 130, 110]
    )
    fine_mm = np.concatenate([[0.0], np.cumsum(speed * 5e-6)])
    at_mm = positions_of_lines(fine_mm, counts_per_line, rate_step=40)  # free running: 5 kHz
    counts = np.floor(at_mm / MM_PER_COUNT + 1e-6).astype(int)
    values = line_values(at_mm[:-1], at_mm[1:])
    odometer = Odometer(mm_per_count=MM_PER_COUNT, counts_per_line=counts_per_line)
    web, web_lines, pitch = [], [], []
    for begin, end in blocks_of(counts, block_lines):
        info = BlockInfo(Status.OK, begin, end - begin, encoder=int(counts[begin]), encoder_end=int(counts[end]))
        if (stretch := odometer.locate(info)) is not None:
            rows = np.arange(end - begin)[stretch.rows]
            web += list(values[begin + rows])
            pitch += list(np.abs(np.diff(at_mm)[begin + rows]))
            web_lines += range(stretch.first_line, stretch.first_line + len(rows))
    assert odometer.reversed_lines > 50
    assert odometer.repeated_lines > 50
    assert odometer.missing_lines == 0
    assert web_lines == list(range(len(web)))
    is_mark = np.array(web) >= 0.5
    rising = np.flatnonzero(is_mark[1:] & ~is_mark[:-1]) + 1
    falling = np.flatnonzero(~is_mark[1:] & is_mark[:-1]) + 1
    assert len(rising) == len(falling) == len(MARKS_MM)
    for edges, truth in ((rising, MARKS_MM), (falling, MARKS_MM + MARK_MM)):
        for line, mm in zip(edges, truth, strict=True):
            assert abs(odometer.millimetres(int(line)) - mm) <= max(pitch[line - 1 : line + 1]) + MM_PER_COUNT
    for line, following in pairwise(range(len(web))):
        assert odometer.millimetres(line) <= odometer.millimetres(following)
