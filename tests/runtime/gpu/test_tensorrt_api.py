"""What Flawline asks of TensorRT exists, with the signatures that it uses, in the versions that devices have."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import msgspec
import pytest

from tests.runtime.gpu.tensorrt_packages import tensorrt_folder

ROOT = Path(__file__).parents[3]
VERSIONS = ("8.6", "10.3", "10.13", "11.4")
_HAS_LOCALS = 2


class Run(NamedTuple):
    """What came of `declared_tensorrt.py`.

    Attributes:
        result: Of the process.
        lines: Numbers of the lines that were run, by file.
    """

    result: subprocess.CompletedProcess[str]
    lines: dict[str, list[int]]


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Runs it for a version."""
    if shutil.which("cc") is None:
        pytest.skip("a C compiler makes the empty libraries behind the bindings")

    @cache
    def once(version: str) -> Run:
        lines = tmp_path_factory.mktemp("lines") / "lines.json"
        environment = os.environ | {
            "FLAWLINE_TENSORRT_BINDINGS": str(tensorrt_folder(version)),
            "FLAWLINE_BUNDLE": str(tiny_bundle),
            "FLAWLINE_LINES": str(lines),
        }
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/runtime/gpu/declared_tensorrt.py"]
        result = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Run(result, msgspec.json.decode(lines.read_bytes()) if lines.exists() else {})

    return once


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_is_done_with_tensorrt_is_as_its_bindings_declare(version: str, run: Callable[[str], Run]) -> None:
    result = run(version).result
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_that_is_done_with_tensorrt_was_left_out(run: Callable[[str], Run]) -> None:
    """Every line of the modules that use it has met the declarations of a version."""
    runs = [run(version).lines for version in VERSIONS]
    assert len(runs[0]) == 3
    for file in runs[0]:
        code = compile(Path(file).read_text(), file, "exec")
        lines = {line for function in functions(code) for _, _, line in function.co_lines() if line is not None}
        assert sorted(lines.difference(*(lines_run[file] for lines_run in runs))) == [], file


def functions(code: CodeType) -> Iterator[CodeType]:
    """The code of functions, those within classes and other functions included."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & _HAS_LOCALS:  # no body of a class
                yield constant
            yield from functions(constant)
