"""Streams whose frames are cut by a trigger or a part finder, from the source to the account."""

import json
import time

import msgspec
import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime.cameras import BlockInfo, Status, open_source
from flawline.runtime.detector import Detector
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.stream import POLICIES, Box, Defect, Gap, PartOptions, TextSink, run
from flawline.runtime.stream.pipeline import WARMUP_FRAMES

PARTS = (100, 260, 400, 600)
PART_LINES, FRAME_LINES = 30, 48
FLAWED = 2


def balance(summary):
    """The identity that must hold however a stream went."""
    assert summary.lines_received + sum(summary.lines_lost.values()) == summary.lines_sent


@pytest.fixture
def conveyor(tmp_path):
    """A noisy conveyor of 700 lines with four parts on it, the third of which has a white spot at (20, 410)."""
    pixels = np.random.default_rng(0).normal(60, 4, (700, 40)).astype(np.uint8)
    for begin in PARTS:
        pixels[begin : begin + PART_LINES, 8:32] = 150
    pixels[410:412, 20:23] = 255
    write_image(tmp_path / "conveyor.png", pixels)
    return tmp_path / "conveyor.png", pixels


def test_the_detector_sees_a_frame_for_every_part_and_defects_lie_on_the_web(conveyor, fake_detector, list_sink):
    path, pixels = conveyor
    detector, lines = fake_detector(), []
    summary = run(
        open_source(f"replay:{path}?block=24"),
        detector,
        [list_sink, TextSink(lines.append)],
        frame_lines=FRAME_LINES,
        cut=PartOptions(margin_lines=6),
    )
    for frame, begin in zip(detector.frames[WARMUP_FRAMES:], PARTS, strict=True):
        np.testing.assert_array_equal(frame, pixels[begin - 6 :][:FRAME_LINES])
    (defect,) = list_sink.of(Defect)
    assert (defect.frame, defect.first_line, defect.box) == (FLAWED, 394, Box(20, 410, 3, 2))
    assert (summary.frames, summary.rejects, summary.lines_scored) == (4, 1, 4 * FRAME_LINES)
    assert (summary.lines_without_part, summary.lines_unscored) == (700 - 4 * FRAME_LINES, {})
    assert list_sink.of(Gap) == []
    assert "parts   not scored: none; 508 lines without part" in lines
    balance(summary)


@pytest.mark.parametrize("policy", POLICIES)
def test_lines_balance_and_no_part_is_silent_with_a_slow_detector(conveyor, fake_detector, list_sink, policy):
    detector = fake_detector(lambda number: time.sleep(0.02))
    source = open_source(f"replay:{conveyor[0]}?block=8&loop=5")
    summary = run(
        source,
        detector,
        [list_sink],
        frame_lines=FRAME_LINES,
        cut=PartOptions(margin_lines=6),
        policy=policy,
        ring_blocks=2,
    )
    balance(summary)
    told = {
        line
        for gap in list_sink.of(Gap)
        for line in range(gap.unscored_first_line, gap.unscored_first_line + gap.unscored_lines)
    }
    unseen = [
        700 * turn + begin
        for turn in range(5)
        for begin in PARTS
        if told.isdisjoint(range(700 * turn + begin, 700 * turn + begin + PART_LINES))
    ]
    assert len(unseen) <= summary.frames
    if policy == "block":
        assert (summary.frames, summary.lines_without_part) == (20, 5 * 700 - 20 * FRAME_LINES)


def test_a_gap_in_a_part_is_told_from_the_beginning_of_its_frame(fake_detector, list_sink, scripted_source):
    class Conveyor(scripted_source):
        def read(self, into, timeout_s):
            info = super().read(into, timeout_s)
            into[...] = 60
            for line in range(info.first_line, info.first_line + info.lines):
                if any(begin <= line < begin + PART_LINES for begin in PARTS):
                    into[line - info.first_line, 4:20] = 150
            return info

    lost = (112, 264)
    script = [BlockInfo(Status.INCOMPLETE if line in lost else Status.OK, line, 8) for line in range(0, 520, 8)]
    summary = run(
        Conveyor(script), fake_detector(), [list_sink], frame_lines=FRAME_LINES, cut=PartOptions(margin_lines=6)
    )
    told = [
        (next(iter(gap.reasons)), gap.first_line, gap.lines, gap.unscored_first_line, gap.unscored_lines)
        for gap in list_sink.of(Gap)
    ]
    assert told == [
        ("incomplete", 112, 8, 94, 26),
        ("cut_part", 120, 10, 120, 10),
        # Of the second part four lines came before the gap.
        ("incomplete", 264, 8, 254, 18),
        ("cut_part", 272, 18, 272, 18),
    ]
    assert (summary.frames, summary.lines_lost) == (1, {"incomplete": 16})
    assert (summary.lines_unscored, summary.parts_unscored) == ({"cut_part": 28}, {"cut_part": 2})
    assert summary.lines_without_part == 520 - 16 - FRAME_LINES - 28 - 18 - 10
    balance(summary)


def test_a_block_of_another_height_is_told_and_the_next_part_is_scored(fake_detector, list_sink, scripted_source):
    script = [BlockInfo(Status.OK, 0, 16), BlockInfo(Status.OK, 16, 15), BlockInfo(Status.OK, 31, 16)]
    detector = fake_detector()
    source = scripted_source(script, block_lines=16)
    summary = run(source, detector, [list_sink], frame_lines=16, cut="trigger")
    assert [int(frame[0, 0]) for frame in detector.frames[WARMUP_FRAMES:]] == [0, 31]
    (gap,) = list_sink.of(Gap)
    assert (gap.first_line, gap.lines, gap.reasons) == (16, 15, {"wrong_height": 15})
    assert gap.detail == "a block of 15 lines; expected 16, the height of a frame"
    assert (summary.frames, summary.lines_scored, summary.parts_unscored) == (2, 32, {"wrong_height": 1})
    balance(summary)


def test_frames_that_are_no_blocks_are_refused_before_the_first_line(fake_detector, list_sink, scripted_source):
    source = scripted_source([BlockInfo(Status.OK, 0, 8)])
    with pytest.raises(InputError, match="frames of 16 lines from scripted, whose blocks have 8; expected the same"):
        run(source, fake_detector(), [list_sink], frame_lines=16, cut="trigger")
    assert source.counters["lines_sent"] == 0


def test_a_fixed_grid_says_nothing_of_parts(conveyor, fake_detector, list_sink):
    summary = run(open_source(f"replay:{conveyor[0]}"), fake_detector(), [list_sink], frame_lines=48)
    assert b"part" not in msgspec.json.encode(msgspec.structs.replace(summary, source=""))


def arguments(bundle, source, *more):
    return ["stream", str(bundle), "--source", f"replay:{source}", "--json", *more]


def events(text, kind):
    return [event for event in map(json.loads, text.splitlines()) if event["type"] == kind]


def test_the_command_takes_every_block_of_a_trigger_for_a_frame(tiny_bundle, good_images, capsys):
    images = list_images(good_images)
    with Detector.open(tiny_bundle) as detector:
        expected = [detector(read_image(path)).score for path in images]
    assert main(arguments(tiny_bundle, f"{good_images}?block=96", "--cut", "trigger", "--threshold", "0")) == 0
    text = capsys.readouterr().out
    scores = {defect["frame"]: defect["frame_score"] for defect in events(text, "defect")}
    assert [scores[frame] for frame in range(len(images))] == expected
    (summary,) = events(text, "summary")
    assert (summary["frames"], summary["lines_unscored"], "lines_without_part" in summary) == (len(images), {}, False)


@pytest.mark.parametrize("given", [False, True])
def test_the_command_finds_parts_and_scores_them_as_they_are(tiny_bundle, good_images, tmp_path, capsys, given):
    images = [read_image(path) for path in list_images(good_images)[:6]]
    generator = np.random.default_rng(0)
    web, begins = [np.full((64, 128), 250, np.uint8)], []
    for image in images:
        begins.append(sum(map(len, web)))
        web += [image, np.full((int(generator.integers(8, 200)), 128), 250, np.uint8)]
    (tmp_path / "web").mkdir()
    write_image(tmp_path / "web" / "conveyor.png", np.concatenate(web))
    write_image(tmp_path / "empty.png", web[0])
    with Detector.open(tiny_bundle) as detector:
        expected = [detector(image).score for image in images]
    more = ["--part-background", str(tmp_path / "empty.png")] if given else []
    options = [
        "--cut",
        "part",
        "--part-margin",
        "0",
        "--part-contrast",
        "30",
        "--part-share",
        "0.1",
        "--threshold",
        "0",
    ]
    assert main(arguments(tiny_bundle, f"{tmp_path / 'web'}?block=37", *options, *more)) == 0
    text = capsys.readouterr().out
    found = {defect["first_line"]: defect["frame_score"] for defect in events(text, "defect")}
    assert found == dict(zip(begins, expected, strict=True))
    (summary,) = events(text, "summary")
    assert (summary["frames"], summary["parts_unscored"]) == (6, {})
    assert summary["lines_without_part"] == summary["lines_received"] - 6 * 96


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cut", "trigger"], None),
        (["--cut", "trigger", "--frame-lines", "95"], "frames of 95 lines from replay:"),
        (["--part-contrast", "30"], "--part-contrast: for parts that are looked for; expected --cut part as well"),
        (["--cut", "trigger", "--part-share", "1", "--part-margin", "0"], "--part-share, --part-margin: for parts"),
        (["--cut", "part", "--part-contrast", "255"], "a contrast of 255 grey levels; expected 1 to 254"),
        (["--cut", "part", "--part-share", "nan"], "a share of nan of a line"),
        (["--cut", "part", "--part-margin", "-1"], "a margin of -1 lines"),
        (["--cut", "part", "--part-margin", "49"], "frames of 96 lines with a margin of 49"),
        (["--cut", "part", "--part-background", "nowhere.png"], "nowhere.png"),
        (
            ["--cut", "part", "--part-background", "{narrow}"],
            "a background of 20 px in grey for lines of 128 px in grey",
        ),
    ],
)
def test_cutting_that_cannot_be_is_one_line_and_exit_2(tiny_bundle, good_images, tmp_path, capsys, options, message):
    write_image(tmp_path / "narrow.png", np.zeros((16, 20), np.uint8))
    options = [option.format(narrow=tmp_path / "narrow.png") for option in options]
    status = main(arguments(tiny_bundle, f"{good_images}?block=96", *options))
    output = capsys.readouterr()
    if message is None:
        assert status == 0
    else:
        assert (status, output.out, output.err.count("\n")) == (2, "", 1)
        assert message in output.err
