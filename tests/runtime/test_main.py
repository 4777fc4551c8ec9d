"""What the command line makes of a full disk, a closed pipe, Ctrl-C and a lack of memory."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from flawline.__main__ import COMMANDS, main
from flawline.runtime.images import write_image


@pytest.fixture
def words(through, tmp_path) -> list[str]:
    """A command that prints a line."""
    write_image(tmp_path / "grey.png", np.full((32, 32), 9, np.uint8))
    return ["score", str(through), str(tmp_path / "grey.png")]


@pytest.fixture
def failing(monkeypatch):
    """Makes `flawline info` fail in a way that no input provokes on demand."""

    def install(error: BaseException) -> None:
        from flawline.runtime.commands import info

        def run(options: object) -> int:
            raise error

        monkeypatch.setattr(info, "run", run)

    return install


def start(words: list[str], stdout: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flawline", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has them ignore it, and a child would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_full_disk_under_the_output_is_one_line_and_exit_status_2(words, extra):
    with Path("/dev/full").open("w") as full, start([*words, *extra], full) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors == "flawline score: No space left on device; the work is not complete\n"


@pytest.mark.parametrize("command", ["info", "verify"])
def test_every_command_of_the_device_tells_a_full_disk(through, command):
    with Path("/dev/full").open("w") as full, start([command, str(through)], full) as process:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (2, 1)


def test_a_reader_that_goes_away_is_no_fault(words):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with start(words, write_end) as process:
        os.close(write_end)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_interrupt_is_exit_status_130_without_a_traceback(through, tmp_path):
    folder = tmp_path / "shots"
    folder.mkdir()
    write_image(folder / "0.png", np.full((32, 32), 9, np.uint8))
    # Their lines are more than a pipe holds, so that it cannot come to the end before it is interrupted.
    for number in range(1, 3_000):
        (folder / f"{number}{'-' * 100}.png").hardlink_to(folder / "0.png")
    read_end, write_end = os.pipe()
    with start(["score", str(through), str(folder)], write_end) as process:
        os.close(write_end)
        os.read(read_end, 1)  # it is scoring, and waits as soon as its lines fill the pipe
        process.send_signal(signal.SIGINT)
        while os.read(read_end, 1 << 16):
            pass
        os.close(read_end)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_a_lack_of_memory_is_one_line_and_exit_status_2(failing, capsys):
    failing(MemoryError())
    assert main(["info", "anywhere"]) == 2
    assert capsys.readouterr().err == "flawline info: out of memory; ask for less at once, or free some\n"


def test_what_the_system_refuses_is_told_with_its_file(failing, capsys):
    failing(PermissionError(13, "Permission denied", "/some/file"))
    assert main(["info", "anywhere"]) == 2
    assert capsys.readouterr().err == "flawline info: /some/file: Permission denied; the work is not complete\n"


def test_a_programming_error_is_not_hidden(failing):
    failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["info", "anywhere"])


@pytest.mark.parametrize("command", ["score", "stream", "verify"])
def test_threads_of_a_command_bind_opencv_too(words, command):
    image = words[2]
    words = {
        "score": words,
        "stream": ["stream", words[1], "--source", f"replay:{image}"],
        "verify": ["verify", words[1]],
    }
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        assert main([*words[command], "--threads", "1"]) == 0
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    assert f"flawline {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "score", "stream"])
def test_a_mistyped_option_shows_the_usage_of_its_command(command, capsys):
    positional = {"fit": ["good", "--out", "x"], "score": ["b", "i.png"], "stream": ["b", "--source", "replay:x"]}
    with pytest.raises(SystemExit) as caught:
        main([command, *positional[command], "--dimm", "3"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"usage: flawline {command} ")
    assert "unrecognized arguments: --dimm 3" in message
