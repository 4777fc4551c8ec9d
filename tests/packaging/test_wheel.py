"""The wheel holds every module of the tree and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ["runtime", "calibration", "detectors", "export", "benchmarks"]
SUFFIXES = {".py", ".pyi", ".md", ".css", ".json", ".cu", ".cuh", ".cubin", ".fatbin"}


def test_the_wheel_equals_the_tree(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
    ]
    subprocess.run([*build, "-C", f"build-dir={tmp_path}/build", str(ROOT)], check=True, timeout=280)
    (wheel,) = tmp_path.glob("flawline-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {f"flawline/{path.name}" for path in (ROOT / "src" / "flawline").glob("*.py")}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in SUFFIXES and "results" not in path.parts:
                expected.add(f"flawline/{path.relative_to(ROOT)}")
    modules = {name for name in packed if name.endswith(".so")}
    assert len(modules) == 1
    assert next(iter(modules)).startswith("flawline/runtime/kernels/_native")
    assert packed - modules == expected
