"""Progress where nobody watches: a line now and then, on standard error alone."""

import json
import time

import pytest

from flawline.__main__ import main
from flawline.runtime import progress as progress_module
from flawline.runtime.progress import progress


def test_long_work_writes_a_line_at_most_once_per_interval(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "_SECONDS_PER_LINE", 0.2)
    begin = time.monotonic()
    for _ in progress(range(50), label="fitting"):
        time.sleep(0.02)
    elapsed = time.monotonic() - begin
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert 1 <= len(lines) <= elapsed / 0.2
    done = [int(line.removeprefix("fitting: image ").removesuffix(" of 50")) for line in lines]
    assert done == sorted(set(done))
    assert 0 < done[0] < done[-1] < 50


def test_short_work_writes_nothing_and_passes_every_item_on(capsys):
    assert list(progress(iter("abc"), label="scoring", unit="frame")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("total", "line"), [(None, "scoring: frame 1"), (3, "scoring: frame 1 of 3")])
def test_a_line_says_what_is_known(total, line, monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "_SECONDS_PER_LINE", 0.0)
    list(progress(iter("abc"), total=total, label="scoring", unit="frame"))
    assert capsys.readouterr().err.splitlines()[1] == line


def test_lines_do_not_run_into_json(monkeypatch, tiny_bundle, tiny_dataset, capsys):
    monkeypatch.setattr(progress_module, "_SECONDS_PER_LINE", 0.0)
    assert main(["evaluate", str(tiny_bundle), str(tiny_dataset), "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["results"]) == 10
    assert "scoring: image 5 of 10\n" in captured.err
