"""Cameras leave no thread behind, and what reads all of a source."""

import importlib.util
import itertools
import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Source, Status, aravis_library, line_shape


@pytest.fixture(autouse=True)
def _threads(no_thread_is_left):
    pass


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch):
    """Aravis looks for cameras on all networks, and tests must not: it runs where there are none, in other processes."""
    aravis_library.library.cache_clear()
    monkeypatch.setattr(aravis_library, "LIBRARY", "libaravis-0.8.so.0-not-here")
    yield
    aravis_library.library.cache_clear()


def require(module: str) -> None:
    """Skips a test where a library is missing, save where everything is set up for the tests."""
    if importlib.util.find_spec(module) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{module} is not installed")


def play(source: Source, lines: int, timeout_s: float = 10.0) -> list[tuple[BlockInfo, np.ndarray | None]]:
    """Reads until so many lines are accounted for, or the end: (info, pixels of an OK block), timeouts left out."""
    buffer = np.empty((source.block_lines, *line_shape(source)), np.uint8)
    reads: list[tuple[BlockInfo, np.ndarray | None]] = []
    end = time.monotonic() + timeout_s
    while sum(info.lines for info, _ in reads) < lines:
        assert time.monotonic() < end, f"too slow: {reads[-3:]}"
        info = source.read(buffer, 0.2)
        if info.status is Status.END:
            break
        if info.status is not Status.TIMEOUT:
            reads.append((info, buffer[: info.lines].copy() if info.status is Status.OK else None))
    for (before, _), (after, _) in itertools.pairwise(reads):
        assert after.first_line == before.first_line + before.lines
        assert after.camera_time_ns >= before.camera_time_ns
        assert after.arrival_time_ns >= before.arrival_time_ns
    return reads


@pytest.fixture(name="play")
def _play() -> Callable[..., list[tuple[BlockInfo, np.ndarray | None]]]:
    return play


@pytest.fixture
def pylon_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two emulated cameras of Basler's own library."""
    require("pypylon")
    monkeypatch.setenv("PYLON_CAMEMU", "2")


@pytest.fixture
def gentl_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four simulated cameras of the GenTL producer that genicam carries."""
    require("harvesters")
    require("genicam")
    from pathlib import Path

    import genicam

    folder = Path(genicam.__file__).parent
    if not (folder / "TLSimu.cti").exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("this genicam has no simulated producer")
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(folder))
