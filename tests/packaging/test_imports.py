"""The runtime stays lean: what it imports, and what it says when something is missing."""

import subprocess
import sys
import textwrap

import pytest

HEAVY = [
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "pycuda",
    "cv2",
    "sklearn",
    "scipy",
    "matplotlib",
    "tqdm",
]

BLOCK = f"""
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Blocked())
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_importing_the_runtime_imports_nothing_heavy():
    result = run_python(f"import sys, flawline.runtime; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("package", ["runtime", "calibration"])
def test_every_module_imports_where_no_engine_is_installed(package):
    code = BLOCK + textwrap.dedent(f"""
        import importlib, pkgutil
        import flawline.{package} as package
        names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.')]
        for name in names:
            importlib.import_module(name)
        print(len(names))
    """)
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 5


def test_a_missing_engine_names_the_extra_to_install(tiny_bundle):
    code = BLOCK + textwrap.dedent("""
        from flawline.runtime import Detector, MissingExtraError
        try:
            Detector.open(sys.argv[1])
        except MissingExtraError as error:
            print(error)
    """)
    result = run_python(code, str(tiny_bundle))
    assert "pip install 'flawline[ort]'" in result.stdout or "pip install opencv" in result.stdout, result.stderr


def test_a_missing_extra_is_one_line_and_exit_2(tiny_bundle):
    code = BLOCK + "from flawline.__main__ import main; sys.exit(main(sys.argv[1:]))"
    result = run_python(code, "verify", str(tiny_bundle))
    assert result.returncode == 2
    assert result.stderr.startswith("flawline verify: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["fit", "score", "evaluate", "info", "verify", "stream", "bench", "demo"])
def test_every_command_teaches_itself(command):
    result = run_python(
        "import sys; from flawline.__main__ import main; sys.exit(main(sys.argv[1:]))", command, "--help"
    )
    assert result.returncode == 0, result.stderr
    assert f"flawline {command}" in result.stdout
    assert len(result.stdout.splitlines()) > 8
