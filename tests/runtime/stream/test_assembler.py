import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.stream import Block, GridAssembler, TriggerAssembler, Unscored

WEB = np.random.default_rng(0).integers(0, 256, (2000, 5), np.uint8)


def block_of(first_line: int, lines: int, arrival_time_ns: int = 0) -> Block:
    return Block(WEB[first_line : first_line + lines], BlockInfo(Status.OK, first_line, lines, 0, arrival_time_ns))


@settings(deadline=None)
@given(
    frame_lines=st.integers(1, 40),
    start=st.integers(0, 50),
    pieces=st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0, 0, 0, 1, 7, 50])), min_size=1, max_size=20),
)
def test_frames_are_exactly_the_whole_ones_of_the_grid(frame_lines, start, pieces):
    assembler = GridAssembler(frame_lines, (5,))
    present = np.zeros(len(WEB), bool)
    frames = {}
    line = start
    for lines, gap in pieces:
        present[line : line + lines] = True
        for frame in assembler.add(block_of(line, lines)):
            assert frame.lines == frame_lines
            assert frame.first_line == frame.index * frame_lines
            frames[frame.index] = frame.pixels.copy()
        line += lines + gap
    grid = range(len(WEB) // frame_lines)
    expected = [index for index in grid if present[index * frame_lines : (index + 1) * frame_lines].all()]
    assert sorted(frames) == expected
    for index, pixels in frames.items():
        np.testing.assert_array_equal(pixels, WEB[index * frame_lines : (index + 1) * frame_lines])


def test_a_frame_arrives_with_the_block_that_brings_its_last_line():
    assembler = GridAssembler(10, (5,))
    assert not list(assembler.add(block_of(0, 9, arrival_time_ns=100)))
    (frame,) = assembler.add(block_of(9, 9, arrival_time_ns=200))
    assert frame.arrival_time_ns == 200


def test_one_buffer_serves_all_frames():
    assembler = GridAssembler(10, (5,))
    assert {id(frame.pixels) for frame in assembler.add(block_of(0, 100))} == {id(assembler.buffer)}


@given(st.lists(st.tuples(st.sampled_from([10, 10, 10, 9, 11, 1]), st.sampled_from([0, 0, 10, 20, 7])), max_size=20))
def test_every_block_of_a_trigger_is_a_frame_or_told(pieces):
    assembler = TriggerAssembler(10)
    line = triggers = 0
    for lines, lost in pieces:
        block = block_of(line, lines, arrival_time_ns=line)
        (item,) = assembler.add(block)
        assert (item.first_line, item.lines) == (line, lines)
        if lines == 10:
            assert (item.index, item.arrival_time_ns) == (triggers, line)
            np.testing.assert_array_equal(item.pixels, block.pixels)
        else:
            assert item == Unscored(
                line, lines, "wrong_height", f"a block of {lines} lines; expected 10, the height of a frame"
            )
        line += lines + lost
        # Of a loss that is no multiple of a block, one trigger more is taken to be lost.
        triggers += 1 + -(-lost // 10)
        assert assembler.lose(line - lost, lost) == (line - lost, lost)
    assert list(assembler.end()) == []
