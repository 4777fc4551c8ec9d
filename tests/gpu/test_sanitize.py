"""What `make test-gpu` makes of compute-sanitizer, with a script in its place."""

from pathlib import Path

import pytest

from tests.gpu import sanitize

FINDS = """
case "$*" in
*past_end.py*) echo "========= Invalid __global__ write of size 4 bytes"; exit 99 ;;
*"$BROKEN"*) echo "========= Race reported"; exit 99 ;;
*) echo "5 passed" ;;
esac
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a script in the place of compute-sanitizer."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("BROKEN", "nothing")

    def write(text: str) -> None:
        path = tmp_path / "compute-sanitizer"
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)

    return write


@pytest.mark.usefixtures("program")
def test_a_machine_without_it_says_so(capsys):
    assert sanitize.main([]) == 0
    assert "not installed: nothing was checked" in capsys.readouterr().err


def test_a_machine_that_does_not_permit_it_says_so(program, capsys):
    program('echo "========= Error: Device not supported"; exit 1')
    assert sanitize.main([]) == 0
    assert "does not find a planted error on this machine" in capsys.readouterr().err


def test_every_tool_must_be_clean(program, monkeypatch, capsys):
    program(FINDS)
    assert sanitize.main(["tests"]) == 0
    assert capsys.readouterr().err.count("clean; 5 passed") == len(sanitize.TOOLS)
    monkeypatch.setenv("BROKEN", "racecheck")
    assert sanitize.main(["tests"]) == 1
    assert "--tool racecheck: status 99" in capsys.readouterr().err


def test_a_tool_that_takes_too_long_is_stopped(program, monkeypatch, capsys):
    program('case "$*" in *past_end.py*) echo "Invalid __global__ write"; exit 99 ;; *) exec sleep 60 ;; esac')
    monkeypatch.setattr(sanitize, "_TIMEOUT_S", 1)
    assert sanitize.main(["tests"]) == 1
    assert "--tool memcheck: stopped after 1 s" in capsys.readouterr().err
