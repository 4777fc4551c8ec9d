"""A network namespace with nothing but loopback, and in it a fake camera and a reader, each a process of its own."""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

HERE = Path(__file__).parent
PATIENCE_S = 60.0


class Read(NamedTuple):
    """What a read gave, as `read_camera` tells it."""

    status: str
    first_line: int
    lines: int
    camera_time_ns: int
    arrival_time_ns: int
    reason: str
    detail: str
    made: int | None
    made_ns: int | None
    is_right: bool | None


class Process:
    """A process that answers commands line by line."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.returncode: int | None = None
        self.errors = ""

    def answer(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
            pytest.fail(f"{self._process.args} does not answer")
        return self._process.stdout.readline().decode().strip()

    def require(self) -> str:
        """An answer that has to come."""
        answer = self.answer()
        if not answer:
            self.end()
            pytest.fail(f"{self._process.args} ended with {self.returncode}: {self.errors}")
        return answer

    def ask(self, command: str) -> str:
        self.tell(command)
        return self.require()

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Ends the process at once, as a cut cable does."""
        self._process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Closes its input, which ends it, and waits."""
        if self.returncode is None:
            _, errors = self._process.communicate(timeout=PATIENCE_S)
            self.errors = errors.decode()
            self.returncode = self._process.returncode


class Wire:
    """The namespace, and what runs in it; see `wire`."""

    def __init__(self, holder: Process, pid: int) -> None:
        self._enter = ["nsenter", "-t", str(pid), "-U", "-n", "--preserve-credentials"]
        self._holder = holder
        self._processes: list[Process] = []

    def camera(self, width: int = 4096, first_line: int = 0, web: Path | None = None) -> Process:
        """A fake camera that listens; see `fake_gv_camera` for its web and its commands."""
        what = [str(width), str(first_line), *([str(web)] if web else [])]
        camera = self._run([sys.executable, str(HERE / "fake_gv_camera.py"), "lo", *what])
        assert camera.require() == "ready"
        return camera

    def reader(self, spec: str) -> tuple[Process, list[Any]]:
        """A process that has opened a source, and its block, width and channels; or what was wrong."""
        reader = self._run([sys.executable, str(HERE / "read_camera.py"), spec])
        return reader, json.loads(reader.require())

    def run(self, command: list[str], seconds: float = 0.0) -> subprocess.CompletedProcess[str]:
        """Runs a command that takes about so long in the namespace to its end."""
        return subprocess.run(self.inside(command), capture_output=True, text=True, timeout=seconds + PATIENCE_S)

    def inside(self, command: list[str]) -> list[str]:
        """A command that runs the given one in the namespace, as the same process."""
        return [*self._enter, *command]

    def end(self) -> None:
        # Readers before their cameras, which they would wait for.
        for process in [*reversed(self._processes), self._holder]:
            process.end()

    def _run(self, command: list[str]) -> Process:
        process = Process(self.inside(command))
        self._processes.append(process)
        return process


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """A namespace, ended with all that runs in it. Skips a test where that cannot be, save in CI."""
    try:
        ctypes.CDLL("libaravis-0.8.so.0")
    except OSError as error:
        refuse(f"{error}: make test-deps installs it")
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            refuse(f"{tool} is not installed: make test-deps installs it where root runs it")
    holder = Process(["unshare", "-rn", "sh", "-c", "ip link set lo up && echo $$ && exec cat"])
    pid = holder.answer()
    if not pid:
        holder.end()
        refuse(f"no network namespace can be made here: {holder.errors.strip()}")
    made = Wire(holder, int(pid))
    try:
        yield made
    finally:
        made.end()


def reads(reader: Process, lines: int) -> list[Read]:
    """Has a reader go on by so many lines, received or lost."""
    reader.tell(f"read {lines}")
    return answered(reader)


def answered(reader: Process) -> list[Read]:
    """What a reader answers that was told to go on."""
    return [Read(*read) for read in json.loads(reader.require())]


def counters(reader: Process) -> dict[str, int]:
    """What a reader's source has counted."""
    return dict(json.loads(reader.ask("counters"))[0])


def refuse(reason: str) -> NoReturn:
    """Skips a test for want of a part; where all parts must be there, fails it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
