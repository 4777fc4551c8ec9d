"""Parts on a conveyor, at any line and in blocks of any size: each is in a frame, or told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.errors import InputError
from flawline.runtime.stream import Block, Frame, PartAssembler, PartOptions, Unscored
from flawline.runtime.stream.part_assembler import CONFIRM_LINES, FORGET_FRAMES
from flawline.runtime.stream.part_finder import GROUP_LINES

WIDTH, FRAME_LINES, MARGIN = 64, 50, 8
OPTIONS = PartOptions(margin_lines=MARGIN)


def conveyor(lines, parts, *, belt=60.0, part=150.0, channels=1, seed=0):
    """A noisy conveyor with parts in its middle: uint8 (lines, 64[, 3]); `parts` are first and number of lines."""
    generator = np.random.default_rng(seed)
    shape = (lines, WIDTH) if channels == 1 else (lines, WIDTH, channels)
    web = np.broadcast_to(np.asarray(belt, float), shape) + generator.normal(0, 4, shape)
    for begin, count in parts:
        web[begin : begin + count, 10:50] = part + generator.normal(0, 10, web[begin : begin + count, 10:50].shape)
    return np.clip(web, 0, 255).astype(np.uint8)


def cut(web, options=OPTIONS, *, block=32, pieces=None, first_line=0, frame_lines=FRAME_LINES):
    """Frames (pixels copied), what was told, and the assembler; `pieces` are lines of blocks and lost lines behind each.

    The assembler gets `gaps`, first lines and numbers of lines that the lost ones touch.
    """
    assembler = PartAssembler(frame_lines, web.shape[1:], options)
    assembler.gaps = []
    items, line = [], 0
    for lines, lost in pieces or [(block, 0)] * -(-len(web) // block):
        pixels = web[line : line + lines]
        if len(pixels):
            for item in assembler.add(Block(pixels, BlockInfo(Status.OK, first_line + line, len(pixels)))):
                if isinstance(item, Frame):
                    item = Frame(item.index, item.first_line, item.pixels.copy(), 0, 0)
                items.append(item)
        if lost:
            assembler.gaps.append(assembler.lose(first_line + line + lines, lost))
        line += lines + lost
    items += assembler.end()
    return [i for i in items if isinstance(i, Frame)], [i for i in items if isinstance(i, Unscored)], assembler


def spans(told):
    return [(item.first_line, item.lines, item.reason) for item in told]


@st.composite
def layouts(draw):
    """Parts of 20 to 40 lines, with at least a frame's rest and `CONFIRM_LINES` behind each."""
    line, parts = draw(st.integers(GROUP_LINES + 30, 120)), []
    for _ in range(draw(st.integers(1, 8))):
        count = draw(st.integers(20, 40))
        parts.append((line, count))
        line += FRAME_LINES + draw(st.integers(0, 90))
    return parts, line + FRAME_LINES


@settings(deadline=None, max_examples=40)
@given(layout=layouts(), sizes=st.lists(st.integers(1, 90), min_size=1, max_size=12), dark=st.booleans())
def test_every_part_is_cut_a_margin_before_it_begins_whatever_the_blocks(layout, sizes, dark):
    parts, lines = layout
    web = conveyor(lines, parts, belt=180.0 if dark else 60.0, part=70.0 if dark else 150.0)
    pieces = [(sizes[i % len(sizes)], 0) for i in range(lines)]
    frames, told, assembler = cut(web, pieces=pieces)
    assert [frame.index for frame in frames] == list(range(len(parts)))
    assert [frame.first_line + MARGIN for frame in frames] == [begin for begin, _ in parts]
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, web[frame.first_line : frame.first_line + FRAME_LINES])
    assert told == []
    covered = np.zeros(lines, bool)
    for frame in frames:
        covered[frame.first_line : frame.first_line + FRAME_LINES] = True
    assert assembler.lines_without_part == lines - covered.sum()


@settings(deadline=None, max_examples=150)
@given(
    parts=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 130)), max_size=8),
    pieces=st.lists(st.tuples(st.integers(1, 70), st.sampled_from([0, 0, 0, 1, 5, 60])), min_size=1, max_size=30),
    first_line=st.sampled_from([0, 5, 1003]),
)
def test_no_part_is_lost_in_silence_whatever_is_missing(parts, pieces, first_line):
    line, placed = GROUP_LINES * 3, []
    for empty, count in parts:
        placed.append((line + empty, count))
        line += empty + count
    total = sum(lines + lost for lines, lost in pieces)
    web = conveyor(total, placed)
    frames, told, assembler = cut(web, pieces=pieces, first_line=first_line)
    received, line = np.zeros(total, bool), 0
    for lines, lost in pieces:
        received[line : line + lines] = True
        line += lines + lost
    scored, unscored = np.zeros(total, bool), np.zeros(total, bool)
    for frame in frames:
        first = frame.first_line - first_line
        assert received[first : first + FRAME_LINES].all()
        np.testing.assert_array_equal(frame.pixels, web[first : first + FRAME_LINES])
        scored[first : first + FRAME_LINES] = True
    for item in told:
        first = item.first_line - first_line
        unscored[first : first + item.lines] = True
        assert received[first : first + item.lines].all()
    for first, count in assembler.gaps:
        unscored[first - first_line : first - first_line + count] = True
    for begin, count in placed:
        part = slice(begin, min(begin + count, total))
        seen = scored[part] | unscored[part]
        # Fewer lines than it takes to tell a part are noise.
        if count >= CONFIRM_LINES and received[part].all() and part.stop - part.start >= CONFIRM_LINES:
            assert seen.any()
            if not unscored[part].any():
                assert any(0 <= begin - (frame.first_line - first_line) < FRAME_LINES for frame in frames)
    # The account: every line that came is in a frame, told, cut by a gap, or empty.
    assert assembler.lines_without_part == (received & ~scored & ~unscored).sum()


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=10), seed=st.integers(0, 20))
def test_nothing_depends_on_the_size_of_blocks(sizes, seed):
    generator = np.random.default_rng(seed)
    parts = [(int(line), int(generator.integers(1, 120))) for line in np.cumsum(generator.integers(60, 200, 15))]
    web = conveyor(2400, parts, part=90.0, seed=seed)
    # Drifting light, and a belt that is nearly as bright as the parts' contrast allows.
    web = np.clip(web + np.linspace(0, 40, len(web))[:, None], 0, 255).astype(np.uint8)
    one = cut(web, block=1)
    other = cut(web, pieces=[(sizes[i % len(sizes)], 0) for i in range(2400)])
    assert [frame.first_line for frame in one[0]] == [frame.first_line for frame in other[0]]
    assert one[1] == other[1]
    assert one[2].lines_without_part == other[2].lines_without_part


def test_a_part_that_differs_in_one_colour_is_found():
    web = conveyor(300, [(100, 30)], belt=(60.0, 60.0, 60.0), part=(60.0, 60.0, 150.0), channels=3)
    frames, told, _ = cut(web)
    assert ([frame.first_line for frame in frames], told) == ([100 - MARGIN], [])


def test_parts_that_touch_are_one_that_is_too_long_and_told():
    frames, told, assembler = cut(conveyor(400, [(100, 40), (140, 40), (300, 30)]))
    assert [frame.first_line for frame in frames] == [92, 292]
    assert spans(told) == [(142, 38, "long_part")]
    assert assembler.lines_without_part == 400 - 2 * FRAME_LINES - 38


def test_a_part_that_begins_in_the_frame_of_another_is_told():
    frames, told, _ = cut(conveyor(400, [(100, 20), (135, 20), (300, 30)]))
    assert [frame.first_line for frame in frames] == [92, 292]
    assert spans(told) == [(142, 13, "long_part")]


def test_a_margin_may_overlap_with_the_frame_before():
    frames, told, assembler = cut(conveyor(400, [(100, 38), (144, 30)]))
    assert ([frame.first_line for frame in frames], told) == ([92, 136], [])
    assert assembler.lines_without_part == 400 - (136 + FRAME_LINES - 92)


def test_a_long_part_is_told_while_it_passes_and_counts_once():
    _, told, _ = cut(conveyor(500, [(100, 300)]))
    assert spans(told) == [(first, min(50, 400 - first), "long_part") for first in range(142, 400, 50)]
    assert [item.continued for item in told] == [False] + [True] * 5


def test_a_part_that_a_gap_cuts_makes_no_frame():
    pieces = [(110, 0), (5, 5), (280, 0)]
    frames, told, assembler = cut(conveyor(400, [(100, 40), (300, 30)]), pieces=pieces)
    assert [frame.first_line for frame in frames] == [292]
    assert spans(told) == [(120, 20, "cut_part")]
    # Of the lines before the gap the gap itself tells, from the beginning of the frame.
    assert assembler.lines_without_part == 395 - FRAME_LINES - (115 - 92) - 20


def test_a_gap_tells_the_part_that_it_cuts():
    assembler = PartAssembler(FRAME_LINES, (WIDTH,), OPTIONS)
    assert assembler.lose(1003, 5) == (1003, 5)
    web = conveyor(115, [(100, 40)])
    assert not list(assembler.add(Block(web, BlockInfo(Status.OK, 1024, 115))))
    assert assembler.lose(1139, 5) == (1024 + 92, 28)
    # What was told once is not told again.
    assert assembler.lose(1144, 5) == (1144, 5)
    assert list(assembler.end()) == []
    assert list(assembler.add(Block(web[:96], BlockInfo(Status.OK, 1149, 96)))) == []
    assert assembler.lose(1245, 5) == (1245, 5)


def test_a_gap_between_parts_cuts_none():
    frames, told, _ = cut(conveyor(400, [(100, 30), (300, 30)]), pieces=[(180, 40), (180, 0)])
    assert ([frame.first_line for frame in frames], told) == ([92, 292], [])


def test_a_gap_in_the_margin_is_told_with_its_part():
    frames, told, _ = cut(conveyor(400, [(100, 30), (300, 30)]), pieces=[(200, 96), (104, 0)])
    assert [frame.first_line for frame in frames] == [92]
    assert spans(told) == [(296, 34, "cut_part")]


def test_a_part_at_the_end_of_the_web_is_told():
    frames, told, _ = cut(conveyor(330, [(100, 30), (300, 30)]))
    assert [frame.first_line for frame in frames] == [92]
    assert spans(told) == [(292, 38, "cut_part")]


def test_a_few_noisy_lines_are_no_part_and_end_none():
    web = conveyor(400, [(100, 30), (200, CONFIRM_LINES - 1)])
    web[110 : 110 + CONFIRM_LINES - 1] = conveyor(CONFIRM_LINES - 1, [])
    frames, told, _ = cut(web)
    assert ([frame.first_line for frame in frames], told) == ([92], [])


def test_slow_changes_of_light_are_followed():
    lines = 40_000
    parts = [(line, 30) for line in range(1000, lines - 100, 500)]
    web = conveyor(lines, parts, belt=50.0, part=250.0)
    belt = np.linspace(0, 100, lines)[:, None]
    web = np.where(web < 100, web + belt, web).astype(np.uint8)
    frames, told, _ = cut(web, block=256)
    assert ([frame.first_line + MARGIN for frame in frames], told) == ([begin for begin, _ in parts], [])


def test_a_lasting_change_of_light_is_told_and_then_learnt():
    web = conveyor(3000, [(2000, 30), (2500, 30)])
    web[500:] = np.clip(web[500:].astype(int) + 60, 0, 255)
    frames, told, assembler = cut(web)
    assert [frame.first_line + MARGIN for frame in frames] == [500, 2000, 2500]
    assert {item.reason for item in told} == {"long_part"}
    end = told[-1].first_line + told[-1].lines
    assert FORGET_FRAMES * FRAME_LINES <= end - 542 <= (FORGET_FRAMES + 2) * FRAME_LINES
    assert assembler.lines_without_part == 3000 - 3 * FRAME_LINES - sum(item.lines for item in told)


def test_the_conveyor_is_not_learnt_while_a_part_comes_or_goes():
    frames, told, _ = cut(conveyor(400, [(20, 30), (300, 30)]))
    assert [frame.first_line for frame in frames] == [292]
    assert spans(told) == [(0, 32, "no_background"), (32, 32, "no_background")]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_given_background_needs_no_empty_lines(channels):
    belt, part = (60.0, 150.0) if channels == 1 else ((20.0, 60.0, 80.0), (20.0, 150.0, 80.0))
    web = conveyor(200, [(12, 30), (100, 30)], belt=belt, part=part, channels=channels)
    empty = np.broadcast_to(np.asarray(belt, np.uint8), web.shape[1:]).copy()
    frames, told, _ = cut(web, PartOptions(margin_lines=MARGIN, background=empty))
    assert ([frame.first_line for frame in frames], told) == ([4, 92], [])


def test_a_part_under_the_camera_at_the_start_is_told():
    web = conveyor(200, [(0, 30), (100, 30)])
    frames, told, _ = cut(web, PartOptions(margin_lines=MARGIN, background=np.full(WIDTH, 60, np.uint8)))
    assert ([frame.first_line for frame in frames], spans(told)) == ([92], [(0, 30, "cut_part")])


def test_memory_is_that_of_the_start_and_frames_are_views_of_it():
    assembler = PartAssembler(FRAME_LINES, (WIDTH,), OPTIONS)
    web = conveyor(2000, [(line, 30) for line in range(100, 1900, 100)])
    bases = set()
    for line in range(0, 2000, 50):
        for item in assembler.add(Block(web[line : line + 50], BlockInfo(Status.OK, line, 50, 7, line))):
            bases.add(id(item.pixels.base))
            assert (item.camera_time_ns, item.arrival_time_ns) == (7, line)
    assert len(bases) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": 0}, "a contrast of 0 grey levels; expected 1 to 254"),
        ({"contrast": 255}, "a contrast of 255 grey levels"),
        ({"share": 0.0}, "a share of 0 of a line; expected above 0, to 1"),
        ({"share": 1.5}, "a share of 1.5 of a line"),
        ({"share": float("nan")}, "a share of nan of a line"),
        ({"margin_lines": -1}, "a margin of -1 lines; expected 0 or more"),
        ({"margin_lines": 26}, "frames of 50 lines with a margin of 26"),
        ({"background": np.zeros(65, np.uint8)}, "a background of 65 px in grey for lines of 64 px in grey"),
        ({"background": np.zeros((64, 3), np.uint8)}, "a background of 64 px in colour for lines of 64 px in grey"),
    ],
)
def test_options_by_which_no_part_could_be_cut_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PartAssembler(FRAME_LINES, (WIDTH,), PartOptions(**options))
