"""Bugs as changes of the CUDA sources, and a place to run what they may break."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[4]
# Little is left to optimise, and most of the time would go to it.
QUICK = ["-O0"]
SANITIZED = [*QUICK, "-fsanitize=address", "-g1"]
OVERFLOW = "AddressSanitizer: heap-buffer-overflow"


class Bug(NamedTuple):
    """One textual change of one source, and the .cu file whose kernels show it."""

    name: str
    file: str
    before: str
    after: str
    kernels: str = "distances.cu"


def names(bugs: Iterable[Bug]) -> list[Any]:
    """Parameters of a test, by their names."""
    return [pytest.param(bug, id=bug.name) for bug in bugs]


def plant(bug: Bug, folder: Path) -> Path:
    """Puts a bug into a copy of the sources, and gives the copy back."""
    path = folder / bug.file
    text = path.read_text()
    assert text.count(bug.before) == 1, f"{bug.name}: {bug.file} has its place {text.count(bug.before)} times, not once"
    path.write_text(text.replace(bug.before, bug.after))
    return folder


def sanitized(examination: ModuleType, library: Path, kernels: str) -> subprocess.CompletedProcess[str]:
    """Examines a library under AddressSanitizer, in a process of its own, since what it finds ends the process."""
    preloaded = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # Python itself never frees all that it has.
    environment = {**os.environ, "LD_PRELOAD": preloaded.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-m", examination.__name__, str(library), kernels]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
