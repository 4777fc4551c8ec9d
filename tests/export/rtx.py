"""TensorRT-RTX in TensorRT's place, in a process of its own: what it loads, and what it might end, stays there."""

import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from multiprocessing import get_context
from typing import NamedTuple

import pytest

from flawline.__main__ import main
from flawline.export import engine as export_engine
from tests.runtime.gpu.tensorrt_packages import tensorrt_folder


class NoDevice(NamedTuple):
    """What a GPU says of itself, without one."""

    name: str = "Orin (nvgpu)"
    arch: tuple[int, int] = (8, 7)
    multiprocessors: int = 8
    total_bytes: int = 15_700_000_000

    @contextmanager
    def current(self, doing: str) -> Iterator[None]:
        yield


def use_rtx(folder: str) -> None:
    """Puts TensorRT-RTX in TensorRT's place, in this process."""
    warnings.simplefilter("error")
    # It keeps no timings and says so; TensorRT does.
    warnings.filterwarnings("ignore", ".*Timing cache operations are no-ops in TensorRT-RTX", DeprecationWarning)
    sys.path.append(folder)
    import tensorrt_rtx_bindings  # type: ignore[import-not-found]

    sys.modules["tensorrt"] = tensorrt_rtx_bindings
    export_engine.Device = NoDevice  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def rtx() -> Iterator[Executor]:
    """Runs functions in that process."""
    folder = tensorrt_folder("rtx")
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=use_rtx, initargs=(str(folder),)) as process:
        yield process


class Ran(NamedTuple):
    status: int
    out: str
    err: str


def run_command(cache: str, words: list[str]) -> Ran:
    os.environ["XDG_CACHE_HOME"] = cache
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(words)
    return Ran(status, out.getvalue(), err.getvalue())
