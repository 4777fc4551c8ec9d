"""`flawline stream` with a bundle for a web, as it is called."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime.bundle import Edges
from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.commands import web_options
from flawline.runtime.images import write_image
from flawline.runtime.web.flat_field import LineAverage, make_flat_field, save
from tests.runtime.web_bundles import FLAW_THRESHOLD, flawed, texture

LINES, WIDTH = 1500, 150
FLAWS = [(101, 5), (333, 42), (505, 100), (700, 62), (1004, 120)]
ENGINE = ["--backend", "onnxruntime"]


@pytest.fixture
def bundle(web_bundle) -> str:
    return str(web_bundle(line_mm=0.2, pixel_mm=0.1).path)


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A web of 1,500 lines in two images, with five flaws."""
    folder = tmp_path_factory.mktemp("rolls")
    pixels = flawed(texture(LINES, WIDTH), FLAWS)
    write_image(folder / "1.png", pixels[:800])
    write_image(folder / "2.png", pixels[800:])
    return folder


def arguments(bundle: str, source: object, *options: str) -> list[str]:
    return ["stream", bundle, "--source", f"replay:{source}", "--threshold", str(FLAW_THRESHOLD), *ENGINE, *options]


def events(text: str) -> tuple[list[dict], list[dict], dict]:
    """Defects, gaps and the summary."""
    told = [json.loads(line) for line in text.splitlines()]
    *others, summary = told
    assert summary["type"] == "summary"
    return *([event for event in others if event["type"] == kind] for kind in ("defect", "gap")), summary


def test_flaws_are_told_as_json_lines_with_millimetres_pictures_and_an_account(bundle, web, tmp_path, capsys):
    options = ["--json", "--thumbnails", str(tmp_path / "thumbnails"), "--strip-lines", "64", "--gate-mm", "1e6"]
    assert main(arguments(bundle, web, *options)) == 0
    output = capsys.readouterr()
    defects, gaps, summary = events(output.out)
    assert output.err == "flawline stream: onnxruntime, strips of 64 lines with 24 of context, 3 tiles\n"
    assert gaps == []
    assert len(defects) == len(FLAWS)
    for defect, (y, x) in zip(defects, FLAWS, strict=True):
        box = defect["box"]
        assert box["x"] <= x + 12 <= box["x"] + box["width"]
        assert box["y"] <= y + 12 <= box["y"] + box["height"]
        assert defect["box_mm"] == pytest.approx(
            {"x": 0.1 * box["x"], "y": 0.2 * box["y"], "width": 0.1 * box["width"], "height": 0.2 * box["height"]}
        )
        assert defect["late"] in (False, None)
        assert Path(defect["thumbnail"]).is_file()
    assert (summary["lines_sent"], summary["lines_received"], summary["lines_scored"]) == (LINES, LINES, LINES)
    assert (summary["ended"], summary["strips"], summary["defects"]) == ("end", 24, len(FLAWS))
    assert (summary["suppressed_defects"], summary["left_edge"]) == (0, None)


def test_text_names_the_edges_and_what_was_suppressed(web_bundle, texture, tmp_path, capsys):
    pixels = flawed(texture(640, 700), [(100, 300), (100, 380), (100, 460)])
    pixels[:, :60] = pixels[:, 640:] = 0
    write_image(tmp_path / "web.png", pixels)
    path = str(web_bundle(edges=Edges(margin_px=8)).path)
    options = ["--pixel-pitch-mm", "0.1", "--max-strip-defects", "1", "--strip-lines", "512", "--threshold", "6"]
    assert main(arguments(path, tmp_path / "web.png", *options)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("defect  ") for line in lines) == 1
    assert any(line.startswith("edge    left at 60.") and "(6.0" in line for line in lines)
    assert any(line.startswith("edge    right at 6") for line in lines)
    assert "strips  2 scored, 1 rejected, 0 bad; 1 defects, 0 of them late, 2 more suppressed" in lines


@pytest.mark.parametrize("everything", [True, False])
def test_what_was_recorded_has_the_same_defects_when_it_is_played(bundle, web, tmp_path, capsys, everything):
    options = ["--record", str(tmp_path / "kept"), *(["--record-all"] if everything else [])]
    assert main(arguments(bundle, f"{web}?loop=4", "--json", *options)) == 0
    first, _, account = events(capsys.readouterr().out)
    assert account["source_counters"]["recorded_blocks"] > 0
    assert main(arguments(bundle, tmp_path / "kept", "--json")) == 0
    again, _, _ = events(capsys.readouterr().out)
    times = {"arrived", "camera_time_ns", "latency_ms"}
    assert len(first) == 4 * len(FLAWS)
    for defect, other in zip(again, first, strict=True):
        assert {k: v for k, v in defect.items() if k not in times} == {k: v for k, v in other.items() if k not in times}
    assert main(arguments(bundle, web, *options)) == 2
    assert "holds a recording already" in capsys.readouterr().err


def test_the_stream_ends_after_so_many_lines(bundle, web, capsys):
    assert main(arguments(bundle, f"{web}?loop=forever&block=50", "--json", "--lines", "420")) == 0
    defects, gaps, summary = events(capsys.readouterr().out)
    assert (summary["ended"], summary["lines_received"], summary["lines_scored"]) == ("line_limit", 450, 450)
    assert len(defects) == 2
    assert summary["lines_received"] + sum(summary["lines_lost"].values()) == summary["lines_sent"]
    assert set(summary["lines_lost"]) <= {"stopped"}
    assert gaps == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_stream_with_a_full_account(bundle, web, tmp_path, number):
    source = f"{web}?loop=forever&line_rate=20000"
    command = [sys.executable, "-m", "flawline", *arguments(bundle, source, "--json", "--record", str(tmp_path / "r"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    defects, _, summary = events(first + rest)
    assert summary["ended"] == "stopped"
    assert summary["defects"] == len(defects) > 0
    assert summary["lines_received"] + sum(summary["lines_lost"].values()) == summary["lines_sent"] > 0
    assert summary["lines_sent"] == summary["source_counters"]["lines_sent"]
    assert summary["lines_scored"] == summary["lines_received"]
    assert errors.count("\n") == 1


def test_a_full_disk_under_the_recorder_is_counted_and_the_stream_goes_on(bundle, web, tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    # In a mount namespace of its own: no other process sees this disk, and it ends with the process.
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    mount += ['mount -t tmpfs -o size=80k none "$0" && exec "$@"', str(room)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, timeout=60).returncode:
        pytest.skip("this process may not mount a small file system")
    command = [*arguments(bundle, web, "--json", "--record", str(room / "r"), "--record-all")]
    done = subprocess.run(
        [*mount, sys.executable, "-m", "flawline", *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    defects, gaps, summary = events(done.stdout)
    counters = summary["source_counters"]
    assert (len(defects), gaps, summary["lines_scored"]) == (len(FLAWS), [], LINES)
    assert counters["recorder_failed_blocks"] > 0
    assert counters["recorded_blocks"] + counters["recorder_failed_blocks"] == 24
    assert counters["recorder_dropped_blocks"] == 0
    assert "does not take a block: No space left on device" in done.stderr
    assert summary["troubles"] == [done.stderr.splitlines()[-1].removeprefix("flawline stream: ")]


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_fallback_from_a_gpu_that_is_not_there(bundle, web, capsys):
    options = ["--json", "--backend", "tensorrt"]
    assert main(arguments(bundle, web, *options)) == 2
    refused = capsys.readouterr()
    assert (refused.out, refused.err.count("\n")) == ("", 1)
    assert main(arguments(bundle, web, *options, "--fallback")) == 0
    output = capsys.readouterr()
    defects, _, summary = events(output.out)
    assert len(defects) == len(FLAWS)
    assert "has taken over: " in summary["troubles"][0]
    assert summary["troubles"][0] in output.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "3", "--frame-lines", "64"], "--frames, --frame-lines: for bundles for pictures"),
        (["--frame-lines", "64"], "--frame-lines: for bundles for pictures; this one is for a web"),
        (["--cut", "part"], "--cut: for bundles for pictures"),
        (["--overlays", "nowhere"], "--overlays: for bundles for pictures"),
        (["--threshold", "nan"], "threshold is nan; expected a finite score"),
        (["--threshold", "inf"], "threshold is inf; expected a finite score"),
        (["--line-pitch-mm", "0.3"], "the line pitch is 0.3 mm, that of the good web 0.2 mm"),
        (["--pixel-pitch-mm", "0.05"], "the pixel pitch is 0.05 mm, that of the good web 0.1 mm"),
        (["--mm-per-count", "0.01", "--counts-per-line", "10"], "the line pitch is 0.1 mm, that of the good web 0.2"),
        (
            ["--mm-per-count", "0.01", "--counts-per-line", "10", "--line-pitch-mm", "0.2"],
            "--line-pitch-mm is 0.2, --mm-per-count times --counts-per-line 0.1; expected the same",
        ),
        (["--counts-per-line", "10"], "counts per line without millimetres per encoder count; expected both"),
        (["--mm-per-count", "0.02", "--counts-per-line", "10"], "gives no encoder counts"),
        (["--fastest-counts-per-line", "20"], "expected --mm-per-count and no --counts-per-line with it"),
        (
            ["--mm-per-count", "0.02", "--counts-per-line", "10", "--fastest-counts-per-line", "20"],
            "--fastest-counts-per-line is for an encoder beside a free running camera",
        ),
        (["--mm-per-count", "1e10"], "expected a number above 0 and below 1e9"),
        (["--strip-lines", "60"], "strips of 60 px; expected a multiple of 8"),
        (["--strip-lines", "80000000000"], "a strip of 80000000000 lines in 3 tiles of 64 px needs about"),
        (["--tile", "100"], "tiles of 100 px; expected a multiple of 8"),
        (["--tile", "8000000000000"], "GB of memory"),
        (["--merge-mm", "1e30"], "expected at most 4096 by 150, the largest defect"),
        (["--merge-mm", "16"], "--merge-mm is 80 lines by 160 px; expected at most 4096 by 150"),
        (["--min-area-mm2", "1e30"], "expected at most 4096 lines of 150, the largest defect"),
        (["--max-defect-lines", "9" * 30], "needs about"),
        (["--ring", "9" * 12], "a ring of 999999999999 blocks of 64 lines needs about"),
        (["--record-all"], "--record-all without --record; expected --record DIR as well"),
        (["--flat-field", "nowhere.flat"], "nowhere.flat"),
        (["--backend", "none"], "backend 'none' is unknown"),
    ],
)
@pytest.mark.parametrize("record", [False, True])
def test_wrong_options_are_one_line_and_exit_status_2_and_nothing_is_recorded(
    bundle, web, tmp_path, capsys, monkeypatch, options, message, record
):
    monkeypatch.chdir(tmp_path)
    if record and options != ["--record-all"]:
        options = [*options, "--record", str(tmp_path / "r")]
    assert main(arguments(bundle, web, *options)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (error,) = output.err.splitlines()
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["web.flaw"]


def test_a_flat_field_of_another_width_is_refused(bundle, web, tmp_path, capsys):
    dark, white = LineAverage((90,)), LineAverage((90,))
    dark.add(np.full((64, 90), 5, np.uint8))
    white.add(np.full((64, 90), 200, np.uint8))
    save(tmp_path / "camera.flat", make_flat_field(dark, white))
    assert main(arguments(bundle, web, "--flat-field", str(tmp_path / "camera.flat"))) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert "90" in output.err
    assert "150" in output.err


@pytest.fixture
def flat_field(tmp_path) -> str:
    """Of stripes, made by the command."""
    random = np.random.default_rng(5)
    dark, white = random.integers(0, 20, WIDTH), random.integers(150, 250, WIDTH)
    for name, line in (("dark", dark), ("white", white)):
        write_image(tmp_path / f"{name}.png", np.tile(line.astype(np.uint8), (64, 1)))
    references = ["--dark", str(tmp_path / "dark.png"), "--white", str(tmp_path / "white.png")]
    assert main(["camera", "flat-field", *references, "--out", str(tmp_path / "camera.flat")]) == 0
    return str(tmp_path / "camera.flat")


def test_a_bundle_fitted_with_a_flat_field_is_not_streamed_without_one(web_bundle, web, flat_field, capsys):
    fitted = str(web_bundle(flat_field_sha256="5f" * 32).path)
    capsys.readouterr()
    assert main(arguments(fitted, web)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "the bundle was fitted with a flat field; expected --flat-field FILE as well" in output.err
    assert main(arguments(fitted, web, "--flat-field", flat_field)) == 0
    assert capsys.readouterr().err.count("\n") == 1


def test_a_flat_field_that_was_not_taken_out_of_the_good_web_is_warned_of(bundle, web, flat_field, capsys):
    capsys.readouterr()
    assert main(arguments(bundle, web, "--flat-field", flat_field)) == 0
    assert "fitted without a flat field; --flat-field is right only if" in capsys.readouterr().err.splitlines()[0]


def test_a_colour_web_for_a_grey_bundle_is_refused(bundle, tmp_path, capsys):
    write_image(tmp_path / "web.png", texture(64, WIDTH, 3))
    assert main(arguments(bundle, tmp_path / "web.png")) == 2
    output = capsys.readouterr()
    assert output.err.endswith("lines of 150 px in 3 channels; expected 150 px in 1\n")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(("given", "faults"), [([], 0), (["--fastest-counts-per-line", "20"], 1)])
def test_counts_faster_than_the_fastest_web_are_not_believed(given, faults):
    parser = argparse.ArgumentParser()
    web_options.add_arguments(parser, int, float)
    odometer = web_options.odometer(parser.parse_args(["--mm-per-count", "0.1", *given]), None)
    odometer.locate(BlockInfo(Status.OK, 0, 64, encoder=0, encoder_end=640))
    odometer.locate(BlockInfo(Status.OK, 64, 64, encoder=640, encoder_end=640 + 64 * 100))
    assert odometer.encoder_faults == faults


@pytest.mark.parametrize("option", ["--gate-mm", "--merge-mm", "--min-area-mm2"])
def test_millimetres_without_a_pitch_are_refused(web_bundle, web, capsys, option):
    path = str(web_bundle().path)
    assert main(arguments(path, web, option, "5")) == 2
    output = capsys.readouterr()
    assert option in output.err
    assert "--line-pitch-mm" in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--strip-lines", "64"],
        ["--tile", "64"],
        ["--counts-per-line", "4"],
        ["--fastest-counts-per-line", "20"],
        ["--mm-per-count", "0.1"],
        ["--gate-mm", "100"],
        ["--merge-mm", "1"],
        ["--min-area-mm2", "1"],
        ["--max-defect-lines", "4096"],
        ["--max-strip-defects", "256"],
        ["--flat-field", "camera.flat"],
        ["--record", "kept"],
        ["--record-all"],
        ["--lines", "100"],
    ],
)
def test_options_for_webs_are_refused_with_a_bundle_for_pictures(
    tiny_bundle, web, tmp_path, capsys, monkeypatch, options
):
    monkeypatch.chdir(tmp_path)
    assert main(["stream", str(tiny_bundle), "--source", f"replay:{web}", *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert f"{options[0]}: for bundles for a web" in output.err
    assert list(tmp_path.iterdir()) == []
