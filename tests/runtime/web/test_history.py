import numpy as np
import pytest

from flawline.runtime.web.history import BLOCKS, LineHistory

MS = 1_000_000


def test_a_line_has_the_times_of_the_block_that_it_came_with():
    history = LineHistory(300)
    assert history.arrival(0) is None
    history.arrived(0, 64, 5, 10)
    history.arrived(64, 64, 6, 11)
    history.arrived(200, 64, 7, 12)
    assert [history.arrival(line).arrival_time_ns for line in (0, 63, 64, 127, 200, 263)] == [10, 10, 11, 11, 12, 12]
    assert history.arrival(150).camera_time_ns == 6  # never came
    assert [history.arrival(line).camera_time_ns for line in (-5, 1000)] == [5, 7]
    for block in range(BLOCKS):
        history.arrived(1000 + block, 1, 0, 1000 + block)
    assert history.arrival(3).first_line == 1000  # forgotten


@pytest.mark.parametrize("block_lines", [1, 7, 5000])
def test_lines_are_remembered_however_short_their_blocks(block_lines):
    history = LineHistory(6000)
    for line in range(0, 9800, block_lines):
        history.arrived(line, block_lines, line, 10 * line)
    for line in (4500, 6000, 9799):
        first = line // block_lines * block_lines
        assert history.arrival(line) == (first, first + block_lines, first, 10 * first)


def test_edges_are_known_for_the_last_lines_only_and_not_in_gaps():
    rng = np.random.default_rng(0)
    history, known, line = LineHistory(50), {}, 0
    for _ in range(200):
        gap = int(rng.integers(0, 80)) if rng.random() < 0.2 else 0
        left = rng.random(int(rng.integers(1, 70))).astype(np.float32)
        line += gap
        history.edges(line, left)
        known |= {line + index: float(value) for index, value in enumerate(left)}
        line += len(left)
        assert [history.left_edge(n) for n in range(line - 50, line)] == [known.get(n) for n in range(line - 50, line)]
        assert history.left_edge(line) is None
        assert history.left_edge(line - 51) is None


def test_the_web_is_taken_to_go_on_at_its_last_speed():
    history = LineHistory(10)
    assert history.travelled_mm(0, float) is None
    history.arrived(0, 100, 0, 0)
    assert history.travelled_mm(50 * MS, float) is None
    time_ms = 0
    for block in range(1, 60):
        time_ms += 100 if block < 20 else 50  # from 1000 to 2000 lines/s
        history.arrived(100 * block, 100, 0, time_ms * MS)
    assert history.travelled_mm((time_ms + 30) * MS, lambda line: 0.5 * line) == pytest.approx(0.5 * (6000 + 60))


def web_that_stands(stand_ms: float, blocks_behind: int) -> tuple[LineHistory, int, int]:
    """A web that runs at 10 lines/ms for five seconds, stands, and runs again: history, lines and time that went by."""
    history, line, time_ms = LineHistory(100), 0, 0.0
    for block in range(500 + blocks_behind):
        time_ms += 10 + stand_ms * (block == 500)
        history.arrived(line, 100, 0, round(time_ms * MS))
        line += 100
    return history, line, round(time_ms * MS)


@pytest.mark.parametrize("stand_ms", [2_000, 3_600_000])
@pytest.mark.parametrize("blocks_behind", [1, 2, 90, 200])
def test_a_stop_does_not_slow_the_web_that_runs_again(stand_ms, blocks_behind):
    history, line, now_ns = web_that_stands(stand_ms, blocks_behind)
    assert history.travelled_mm(now_ns + 400 * MS, float) == pytest.approx(line + 4000)


def test_a_web_that_creeps_goes_on_creeping():
    history = LineHistory(100)
    for block in range(5):
        history.arrived(100 * block, 100, 0, 4000 * block * MS)
    assert history.travelled_mm(16_000 * MS + 400 * MS, float) == pytest.approx(510)
