"""Which engines are there, told without importing any; and what is said of one that is not."""

import importlib.metadata
import subprocess
import sys
import textwrap

import pytest

from flawline.runtime.backends import BACKENDS, installed, version

WITHOUT = """
import importlib.abc, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""


def run_without(module: str, code: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT + textwrap.dedent(code), module],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_engines_are_told_without_importing_them():
    found = run_without(
        "nothing",
        """
        from flawline.runtime.backends import BACKENDS, installed, version
        print(*installed(), *(version(name) for name in installed()))
        print([engine.module for engine in BACKENDS.values() if engine.module in sys.modules])
        """,
    )
    names, imported = found.splitlines()
    assert names.split()[: len(installed())] == list(installed())
    assert "None" not in names
    assert imported == "[]"


@pytest.mark.parametrize("name", BACKENDS)
def test_the_version_is_that_of_the_module(name):
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    said = version(name)
    assert said is not None
    assert said in {importlib.metadata.version(each) for each in BACKENDS[name].distributions if is_there(each)}


def is_there(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.parametrize("name", BACKENDS)
def test_an_engine_that_is_missing_names_its_extra(name):
    said = run_without(
        BACKENDS[name].module,
        f"""
        from flawline.runtime.backends import installed, open_backend
        from flawline.runtime.errors import MissingExtraError
        assert {name!r} not in installed()
        try:
            open_backend({name!r}, b"", (1, 4, 4, 1), [(1, 4, 4, 1)])
        except MissingExtraError as error:
            print(error)
        """,
    )
    assert f"install it: pip install 'flawline[{BACKENDS[name].extra}]'" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("missing", "preferred"), [("nothing", "onnxruntime"), ("onnxruntime", "openvino")])
def test_the_preferred_engine_is_the_first_that_is_there(missing, preferred):
    if len(installed()) < 2:
        pytest.skip("only one engine is installed")
    said = run_without(
        missing,
        """
        from flawline.runtime.backends import preferred_engine
        print(preferred_engine("fp32"), preferred_engine("bf16"), preferred_engine("int8"))
        """,
    )
    assert said.split() == [preferred, "openvino", "onnxruntime"]
