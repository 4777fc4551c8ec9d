"""The search finds what holds, the source keeps its rate, and the command measures a real web."""

import json
import time

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.benchmarks.stream.search import highest
from flawline.benchmarks.stream.source import MemorySource
from flawline.runtime.cameras import Status
from flawline.runtime.images import write_image
from tests.runtime.conftest import through_bundle
from tests.runtime.web_bundles import texture, web_bundle


@pytest.mark.parametrize("true", [21, 137.0, 900])
def test_the_largest_that_holds_is_found_within_a_tenth(true):
    found = highest(lambda value: value <= true, 20, 1000)
    assert found is not None
    assert true / 1.1 <= found <= true


def test_the_ends_of_a_search():
    assert highest(lambda value: True, 20, 1000) == 1000
    assert highest(lambda value: False, 20, 1000) is None
    assert highest(lambda value: value <= 20, 20, 1000) == 20


def test_the_source_sends_real_lines_at_its_rate_and_ends():
    lines = np.random.default_rng(0).integers(0, 256, (100, 32), np.uint8)
    source = MemorySource(lines, line_rate=2000, block_lines=50, total=300)
    block = np.empty((50, 32), np.uint8)
    start = time.monotonic()
    reads = [source.read(block, 1.0) for _ in range(7)]
    assert time.monotonic() - start >= 0.149
    assert [info.status for info in reads] == [Status.OK] * 6 + [Status.END]
    assert [info.first_line for info in reads[:6]] == list(range(0, 300, 50))
    assert any(np.array_equal(block, lines[start : start + 50]) for start in range(51))


@pytest.mark.parametrize("find", ["rate", "width"])
def test_the_command_measures(find, tmp_path, capsys):
    bundle = web_bundle(tmp_path / "web.flaw")
    write_image(tmp_path / "web.png", texture(200, 96))
    options = ["--lines", str(tmp_path / "web.png"), "--find", find, "--line-rate", "400", "--highest-rate", "400"]
    options += ["--seconds", "0.5", "--trial-seconds", "0.2", "--ring-seconds", "0.1", "--backend", "onnxruntime"]
    assert main(["bench", "stream", str(bundle.path), *options, "--json", str(tmp_path / "out.json")]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    results = written["results"]
    assert (results["width_px"], results["line_rate"]) == (96, 400.0)
    assert results["lines_sent"] == 224
    assert sum(results["stage_shares"].values()) == pytest.approx(1)
    assert results["latency_ms"]["p50"] > 0
    assert str(tmp_path) not in json.dumps(written["settings"])
    assert "last line to verdict" in capsys.readouterr().out


def test_a_bundle_for_pictures_is_refused(tmp_path, capsys):
    write_image(tmp_path / "web.png", texture(200, 96))
    bundle = through_bundle(tmp_path / "through.flaw")
    assert main(["bench", "stream", str(bundle.path), "--lines", str(tmp_path / "web.png")]) == 2
    assert "is one for pictures" in capsys.readouterr().err
