import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flawline.__main__ import main
from flawline.runtime import memory
from flawline.runtime.cameras import SCHEMES, open_source
from flawline.runtime.cameras.trial import try_source

SMALL = "pylon:any?width=64&block=16&feature.ExposureTimeAbs=100"


def test_list_names_cameras_that_open(pylon_cameras, gentl_cameras, capsys):
    assert main(["camera", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    specs = [camera["spec"] for camera in document["cameras"]]
    assert {"pylon:0815-0000", "pylon:0815-0001", "gentl:SN_InterfaceA_0", "gentl:SN_InterfaceB_1"} <= set(specs)
    for spec in ("pylon:0815-0001", "gentl:SN_InterfaceA_0"):
        assert main(["camera", "test", spec, "--seconds", "0.3"]) == 0
    assert main(["camera", "list"]) == 0
    table = capsys.readouterr().out
    assert all(spec in table for spec in specs)
    assert "Basler Emulation" in table


def test_kind_without_its_library_is_told_and_the_list_goes_on(monkeypatch, gentl_cameras, capsys):
    monkeypatch.setitem(sys.modules, "pypylon", None)
    monkeypatch.setitem(sys.modules, "pypylon.pylon", None)
    from flawline.runtime.cameras import pylon
    from flawline.runtime.extras import LazyModule

    monkeypatch.setattr(pylon, "pylon", LazyModule("pypylon.pylon", "pip install 'flawline[pylon]'"))
    assert main(["camera", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "pip install 'flawline[pylon]'" in document["unavailable"]["pylon"]
    assert "gentl:SN_InterfaceA_0" in [camera["spec"] for camera in document["cameras"]]
    assert main(["camera", "list"]) == 0
    assert "camera list: pylon: not looked for" in capsys.readouterr().err
    assert main(["camera", "test", "pylon:any"]) == 2
    assert "pip install 'flawline[pylon]'" in capsys.readouterr().err


def test_test_tells_the_rate_and_every_line(web, capsys):
    assert main(["camera", "test", f"replay:{web[0]}?line_rate=2000&block=10&loop=10", "--json"]) == 0
    trial = json.loads(capsys.readouterr().out)
    assert (trial["width"], trial["channels"], trial["block_lines"]) == (24, 1, 10)
    assert trial["lines_received"] == trial["counters"]["lines_sent"] == 970
    assert trial["lines_lost"] == {}
    assert 0.4 < trial["seconds"] < 5
    assert trial["line_rate_asked"] == 2000
    # The last block may be late on a busy machine, and is never early.
    assert 500 < trial["line_rate_held"] < 2100
    for times in (trial["gap_ms"], trial["delay_ms"]):
        assert 0 < times["p50"] <= times["p99"] <= times["max"]


def test_delay_is_that_of_the_reading_beyond_the_fastest_block(web):
    class LateSource:
        """The replay of a web, of whose blocks every fifth comes 30 ms late."""

        def __init__(self, source) -> None:
            self._source, self._reads = source, 0

        def __getattr__(self, name):
            return getattr(self._source, name)

        def read(self, into, timeout_s):
            info = self._source.read(into, timeout_s)
            self._reads += 1
            time.sleep(0.03 if self._reads % 5 == 0 else 0)
            return info

    with contextlib.closing(open_source(f"replay:{web[0]}?line_rate=200&block=10&loop=2")) as source:
        trial = try_source(LateSource(source), 10, threading.Event())
    assert trial.delay_ms.max > 29
    assert trial.delay_ms.p50 < 25


def test_block_that_would_not_fit_into_memory_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**9)
    header = {"recording": 1, "spec": "x", "width": 1 << 20, "channels": 3, "block_lines": 1 << 16}
    (tmp_path / "recording.jsonl").write_text(json.dumps(header) + "\n")
    (tmp_path / "lines.raw").write_bytes(b"")
    assert main(["camera", "test", f"replay:{tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "a block of 65536 lines" in error
    assert error.count("\n") == 1


def test_help_names_every_kind_of_camera(capsys):
    with pytest.raises(SystemExit):
        main(["camera", "--help"])
    text = capsys.readouterr().out
    assert all(f"  {kind}:" in text for kind in SCHEMES)


def test_lost_lines_are_told_with_their_reason_and_exit_status_1(pylon_cameras, capsys):
    failures = "feature.ForceFailedBufferCount=3&feature.ForceFailedBuffer=1"
    assert main(["camera", "test", f"{SMALL}&{failures}", "--seconds", "0.5"]) == 1
    text = capsys.readouterr().out
    assert "lost      48 lines: incomplete_frame (The buffer was incompletely grabbed.)" in text
    assert "frames_incomplete 3" in text


def test_camera_that_sends_nothing_fails(pylon_cameras, capsys):
    assert main(["camera", "test", f"{SMALL}&feature.TriggerMode=On", "--seconds", "0.5"]) == 1
    assert "no line came" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["camera:web"], "unknown kind 'camera'"),
        (["replay:/nowhere"], "/nowhere does not exist"),
        (["video:/nowhere.avi"], "/nowhere.avi does not exist"),
        (["replay:.", "--seconds", "0"], "--seconds 0.0; expected a number above 0"),
        (["replay:.", "--seconds", "nan"], "expected a number above 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(words, message, capsys):
    assert main(["camera", "test", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_interrupt_ends_with_the_account(web):
    words = ["camera", "test", f"replay:{web[0]}?line_rate=2000&block=10&loop=forever", "--seconds", "600", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "flawline", *words], stdout=subprocess.PIPE, env=os.environ
    ) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(out)["lines_received"] > 0


@pytest.mark.parametrize("action", ["list", "test", "flat-field"])
def test_help_of_an_action_teaches_it(action, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["camera", action, "--help"])
    assert raised.value.code == 0
    assert f"flawline camera {action}" in capsys.readouterr().out.split("options:")[0]
