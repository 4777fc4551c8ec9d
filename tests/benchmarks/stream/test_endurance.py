"""A web for hours: the check holds where everything is well, and fails with each fault that is planted."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.benchmarks.stream.endless import COUNTS_PER_LINE, MARK_PX, Encoder, EndlessWeb, Marks, there_and_back
from flawline.benchmarks.stream.monitor import Growth, Interval
from flawline.runtime.cameras import Status
from flawline.runtime.images import read_image, write_image
from tests.runtime.web_bundles import FLAW_THRESHOLD, texture, web_bundle

QUICK = ["--line-rate", "800", "--minutes", "0.05", "--strip-lines", "32", "--mark-seconds", "0.4"]
QUICK += ["--backend", "onnxruntime", "--threads", "1"]
HURRY = ["--ring-seconds", "0.01", "--mark-seconds", "0.001"]


def endurance(folder: Path, *options: str) -> tuple[int, dict]:
    """Three seconds of a small web; the status and what was written."""
    bundle = web_bundle(folder / "web.flaw", threshold=FLAW_THRESHOLD)
    write_image(folder / "web.png", texture(200, 160))
    words = ["bench", "endurance", str(bundle.path), "--lines", str(folder / "web.png"), *QUICK, *options]
    return main([*words, "--json", str(folder / "out.json")]), json.loads((folder / "out.json").read_text())


def test_everything_holds(tmp_path, capsys):
    # Memory is that of all tests of this process, of which some is touched again.
    status, written = endurance(tmp_path, "--folder", str(tmp_path / "work"), "--growth-mb", "100")
    results, settings = written["results"], written["settings"]
    assert (status, results["failures"]) == (0, [])
    assert results["summary"]["lines_sent"] == results["summary"]["lines_received"] == 2400
    assert len(results["intervals"]) == 60
    assert all(each["rss_kb"] > 0 and each["cpu_cores"] > 0 for each in results["intervals"])
    assert results["drift"]["marks"] >= 4
    assert results["summary"]["pictures"]["written"] >= results["drift"]["marks"]
    assert results["summary"]["source_counters"]["recorded_blocks"] > 0
    assert list((tmp_path / "work").iterdir()) == []
    assert str(tmp_path) not in json.dumps(settings)
    assert "everything held" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "failures"),
    [
        ("hoard", ["memory grew by"]),
        ("skip", ["lines were lost: skipped 32"]),
        ("slip", ["positions drifted by", "scores of the marks differ"]),
        ("clock", ["clock and lines drifted apart by"]),
    ],
)
def test_a_planted_fault_is_found(fault, failures, tmp_path, capsys):
    status, written = endurance(tmp_path, "--plant", fault, "--growth-mb", "4")
    found = written["results"]["failures"]
    assert status == 1
    assert all(any(each.startswith(failure) for each in found) for failure in failures)
    assert f"planted fault: {fault}" in capsys.readouterr().out
    if fault in ("hoard", "skip", "clock"):
        assert len(found) == 1


def test_a_detector_that_is_too_slow_drops_lines_and_fails(tmp_path):
    status, written = endurance(tmp_path, "--line-rate", "400000", "--minutes", "0.005", *HURRY)
    results = written["results"]
    assert status == 1
    assert results["summary"]["lines_lost"]["ring_drop_newest"] > 0
    assert any(failure.startswith("lines were lost: ring_drop_newest") for failure in results["failures"])
    assert sum(each["lines_lost"] for each in results["intervals"]) == sum(results["summary"]["lines_lost"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0.01"], "minutes or more"),
        (["--mark-seconds", "2"], "for 3 marks"),
        (["--strip-lines", "256"], "a strip"),
    ],
)
def test_what_is_too_small_is_refused(options, message, tmp_path, capsys):
    bundle = web_bundle(tmp_path / "web.flaw")
    write_image(tmp_path / "web.png", texture(200, 160))
    assert main(["bench", "endurance", str(bundle.path), "--lines", str(tmp_path / "web.png"), *QUICK, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bundle_1_4", "is a bundle of a reconstruction detector; this needs one of PaDiM"),
        ("bundle_1_0", "the bundle is one for pictures; expected one that `flawline fit --web` made"),
    ],
)
def test_a_bundle_for_no_web_is_refused_before_anything_is_said(name, message, tmp_path, capsys):
    pictures = Path(__file__).parents[2] / "golden" / name
    write_image(tmp_path / "web.png", texture(200, 160))
    words = ["--lines", str(tmp_path / "web.png"), *QUICK, "--folder", str(tmp_path / "work")]
    assert main(["bench", "endurance", str(pictures), *words]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert message in said.err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_numbers_that_make_no_sense_are_refused(value, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "endurance", "web.flaw", "--lines", "web.png", f"--minutes={value}"])
    assert exit_.value.code == 2
    assert "expected a number above 0" in capsys.readouterr().err


def interval(minutes: float, rss_kb: int) -> Interval:
    return Interval(minutes, 0, rss_kb, rss_kb, 0, None, 0.0)


def test_growth_is_counted_behind_the_first_tenth():
    flat = [interval(minute, 1000 if minute else 10) for minute in range(60)]
    assert Growth.of(flat) == (1000, 0, pytest.approx(0.0, abs=1e-9))
    rising = [interval(minute, 1000 + 5 * minute) for minute in range(60)]
    assert Growth.of(rising) == (1025, 270, pytest.approx(5.0))
    assert Growth.of(flat[:1]) == (10, 0, 0.0)


def test_a_web_goes_there_and_back_without_a_seam():
    lines = np.random.default_rng(0).integers(0, 256, (70, 8), np.uint8)
    web = there_and_back(lines, 32)
    assert web.shape == (128, 8)
    assert np.array_equal(web[:64], lines[:64])
    assert np.array_equal(web[64:], lines[63::-1])
    assert np.array_equal(web[0], web[-1])


@pytest.mark.parametrize("block", [1, 16, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_marks_are_drawn_at_their_lines_however_the_web_is_cut(block, channels):
    marks = Marks(first_line=37, period=128, left=20)
    web = np.full((512, 100) if channels == 1 else (512, 100, 3), 99, np.uint8)
    for first in range(0, len(web), block):
        marks.draw(web[first : first + block], first)
    drawn = np.flatnonzero((web != 99).reshape(len(web), -1).any(axis=1))
    expected = [marks.line(number) + row for number in range(marks.count(len(web))) for row in range(MARK_PX)]
    assert drawn.tolist() == expected
    mark = web[37 : 37 + MARK_PX, 20 : 20 + MARK_PX].reshape(MARK_PX, MARK_PX, -1)[..., 0]
    assert sorted(set(mark.ravel().tolist())) == [0, 255]
    assert [marks.count(lines) for lines in (0, 37, 38, 165, 166)] == [0, 0, 1, 1, 2]


def test_the_encoder_wraps_runs_unevenly_and_never_backwards():
    encoder = Encoder.wrapping_at(3000, 640)
    travel = [encoder.travel(line) for line in range(6401)]
    assert encoder.count(2950) > encoder.count(3050)
    assert travel[0] == 0
    assert travel[6400] == 6400 * COUNTS_PER_LINE
    steps = np.diff(travel)
    assert steps.min() >= 3
    assert steps.max() <= 5
    assert max(abs(np.array(travel) - COUNTS_PER_LINE * np.arange(6401))) > 20


def test_the_web_remembers_when_each_block_was_sent():
    marks = Marks(10, 128, 20)
    web = EndlessWeb(
        np.zeros((128, 100), np.uint8), marks, Encoder(128, 0), line_rate=10_000, block_lines=32, total=256
    )
    block = np.empty((32, 100), np.uint8)
    assert np.isnan(web.lateness_lines()).all()
    infos = [web.read(block, 1.0) for _ in range(9)]
    assert [info.status for info in infos] == [Status.OK] * 8 + [Status.END]
    assert web.camera_times_ns.tolist() == [info.camera_time_ns for info in infos[:8]]
    assert (web.lateness_lines() >= 0).all()
    assert all(info.encoder_end == following.encoder for info, following in pairwise(infos[:8]))


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.timeout(900)
def test_five_minutes_of_fabric_at_2000_lines_of_4096_px(shared_data, tmp_path):
    """In a process of its own, whose memory nothing else touches."""
    fabric = shared_data / "aitex"
    runs = json.loads((fabric / "streams.json").read_text())["02"]["contiguous_runs"]
    good = tmp_path / "good"
    good.mkdir()
    for number, run in enumerate(runs):
        strips = [read_image(fabric / "good" / "02" / name) for name in run]
        write_image(good / f"{number}.png", np.concatenate(strips))
    weights = shared_data / "resnet18" / "resnet18_imagenet1k_v1_bnfolded_l1-3_fc.npz"
    bundle = tmp_path / "fabric.flaw"
    fit = ["fit", str(good), "--web", "--out", str(bundle), "--backbone", "resnet18", "--weights", str(weights)]
    fit += ["--layers", "layer1", "--dim", "32", "--binning", "8", "--strip-lines", "128", "--tile", "1024"]
    assert main(fit) == 0
    words = [sys.executable, "-m", "flawline", "bench", "endurance", str(bundle), "--lines", str(good / "0.png")]
    words += ["--minutes", "5", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    summary = results["summary"]
    assert summary["lines_sent"] == summary["lines_received"] == 600_000
    assert len(results["intervals"]) == 60
    assert results["drift"]["marks"] >= 25
    assert summary["events_failed"] == summary["pictures"]["dropped"] == summary["pictures"]["failed"] == 0
