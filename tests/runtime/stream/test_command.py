import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime.commands.stream import default_frame_lines
from flawline.runtime.detector import Detector
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.stream import POLICIES

HEIGHT, WIDTH = 96, 128
FLAWED = (2, 5)


@pytest.fixture(scope="module")
def product(tmp_path_factory, good_images) -> Path:
    """Eight frames that make a web, two of them with a dark spot around (68, 48)."""
    folder = tmp_path_factory.mktemp("product")
    for number, path in enumerate(list_images(good_images)[:8]):
        frame = read_image(path)
        if number in FLAWED:
            frame[40:56, 60:76] = 10
        write_image(folder / path.name, frame)
    return folder


def objects(text: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {"defect": [], "gap": [], "summary": []}
    for line in text.splitlines():
        event = json.loads(line)
        found[event["type"]].append(event)
    return found


@pytest.mark.parametrize("block", [16, 100])
def test_stream_finds_what_the_detector_finds_in_the_images(tiny_bundle, product, capsys, block):
    with Detector.open(tiny_bundle) as detector:
        results = [detector(read_image(path)) for path in sorted(product.iterdir())]
        threshold = (sorted(result.score for result in results)[-3] + min(results[i].score for i in FLAWED)) / 2
        detector.threshold = threshold
        results = [detector(read_image(path)) for path in sorted(product.iterdir())]
    assert [i for i, result in enumerate(results) if result.verdict == "reject"] == list(FLAWED)

    arguments = ["stream", str(tiny_bundle), "--source", f"replay:{product}?block={block}", "--json"]
    assert main([*arguments, "--threshold", repr(threshold), "--line-pitch-mm", "0.5", "--pixel-pitch-mm", "0.2"]) == 0
    found = objects(capsys.readouterr().out)
    expected = [
        (i, 96 * i, region.x, 96 * i + region.y, region.width, region.height, region.peak, results[i].score)
        for i in FLAWED
        for region in results[i].regions
    ]
    received = [
        (
            d["frame"],
            d["first_line"],
            *(d["box"][key] for key in ("x", "y", "width", "height")),
            d["peak"],
            d["frame_score"],
        )
        for d in found["defect"]
    ]
    assert received == expected
    box = found["defect"][0]["box"]
    assert found["defect"][0]["box_mm"]["y"] == box["y"] * 0.5
    assert box["x"] <= 68 <= box["x"] + box["width"]
    assert box["y"] <= 2 * 96 + 48 <= box["y"] + box["height"]
    (summary,) = found["summary"]
    assert (summary["frames"], summary["rejects"], summary["lines_sent"], summary["ended"]) == (8, 2, 768, "end")
    assert summary["lines_lost"] == {}
    assert set(summary["stages_ms"]) == {"wait", "resize", "network", "kernel", "regions", "sinks"}
    assert set(summary["latency_ms"]) == {"p50", "p90", "p99", "max"}


def test_pictures_and_file_are_written_where_asked(tiny_bundle, product, tmp_path, capsys):
    out = tmp_path / "events.jsonl"
    out.write_text('{"type": "summary", "from": "yesterday"}\n')
    arguments = ["stream", str(tiny_bundle), "--source", f"replay:{product}", "--out", str(out), "--threshold", "0"]
    pictures = ["--thumbnails", str(tmp_path / "thumbnails"), "--overlays", str(tmp_path / "overlays")]
    assert main([*arguments, *pictures]) == 0
    text = capsys.readouterr().out
    found = objects(out.read_text())
    assert [summary.get("from") for summary in found["summary"]] == ["yesterday", None]
    assert found["summary"][1]["rejects"] == 8
    assert text.count("defect  frame") == len(found["defect"]) >= 8
    for defect in found["defect"]:
        assert read_image(Path(defect["overlay"])).shape == (96, 128, 3)
        assert read_image(Path(defect["thumbnail"])).ndim == 2
    assert "rate    asked as fast as possible, held" in text


def test_frames_have_the_proportions_of_the_good_images(tiny_bundle):
    with Detector.open(tiny_bundle) as detector:
        assert default_frame_lines(detector.bundle.manifest, WIDTH) == HEIGHT
        assert default_frame_lines(detector.bundle.manifest, 2 * WIDTH) == 2 * HEIGHT


def test_frame_limit_and_frame_lines(tiny_bundle, product, capsys):
    source = f"replay:{product}?loop=forever"
    options = ["--frames", "3", "--frame-lines", "50", "--json"]
    assert main(["stream", str(tiny_bundle), "--source", source, *options]) == 0
    (summary,) = objects(capsys.readouterr().out)["summary"]
    assert (summary["frames"], summary["lines_scored"], summary["ended"]) == (3, 150, "frame_limit")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_stream_with_its_account(tiny_bundle, product, number):
    source = f"replay:{product}?loop=forever&line_rate=20000"
    command = [sys.executable, "-m", "flawline", "stream", str(tiny_bundle), "--source", source]
    with subprocess.Popen(
        [*command, "--json", "--threshold", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()  # the stream is under way
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    (summary,) = objects(first + rest)["summary"]
    assert summary["ended"] == "stopped"
    assert summary["lines_received"] + sum(summary["lines_lost"].values()) == summary["lines_sent"]
    assert summary["line_rate_asked"] == 20000


def test_full_disk_under_the_events_is_told_and_exit_status_1(tiny_bundle, product, capsys):
    arguments = ["stream", str(tiny_bundle), "--source", f"replay:{product}", "--out", "/dev/full", "--threshold", "0"]
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert "No space left on device" in output.err
    assert "frames  8 scored" in output.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "camera:x"], "unknown kind 'camera'"),
        (["--source", "replay:nowhere"], "nowhere does not exist"),
        (["--source", "replay:nowhere", "--line-pitch-mm", "1"], "expected both"),
        (["--source", "replay:nowhere", "--threshold", "nan"], "expected a finite score"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(tiny_bundle, capsys, options, message):
    assert main(["stream", str(tiny_bundle), *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.count("\n") == 1


def test_web_of_the_wrong_kind_is_refused(tiny_bundle, tmp_path, capsys):
    write_image(tmp_path / "colour.png", np.zeros((96, 128, 3), np.uint8))
    assert main(["stream", str(tiny_bundle), "--source", f"replay:{tmp_path}"]) == 2
    assert "this bundle takes uint8 (height, width)" in capsys.readouterr().err


def test_frames_too_small_to_mean_anything_are_refused(through, tmp_path, capsys):
    write_image(tmp_path / "web.png", np.zeros((64, 64), np.uint8))
    assert main(["stream", str(through), "--source", f"replay:{tmp_path}", "--frame-lines", "8"]) == 2
    assert "frame is 64 x 8 px; expected at least 16 px each way" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--ring", "0"], ["--frames", "x"], ["--line-pitch-mm", "-1"], ["--policy", "hope"]])
def test_impossible_option_is_refused(words, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["stream", "bundle", "--source", "replay:web", *words])
    assert raised.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_policies_of_the_command_are_those_of_the_ring(capsys):
    with pytest.raises(SystemExit):
        main(["stream", "--help"])
    assert "{" + ",".join(POLICIES) + "}" in capsys.readouterr().out


def test_reader_that_goes_away_ends_the_stream_quietly(tiny_bundle, product):
    source = f"replay:{product}?loop=forever"
    command = [sys.executable, "-m", "flawline", "stream", str(tiny_bundle), "--source", source, "--threshold", "0"]
    read_end, write_end = os.pipe()
    with subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE, text=True) as process:
        os.close(write_end)
        os.read(read_end, 10)
        os.close(read_end)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
