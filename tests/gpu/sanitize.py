"""The tests of the kernels on a GPU under compute-sanitizer, where it is installed and the machine permits it.

  python -m tests.gpu.sanitize [PYTEST ARGUMENT...]

Ends with status 0 where it cannot be had, and says why; 1 where it finds something.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "synccheck")
_PROGRAM = "compute-sanitizer"
_FOUND = 99
_TIMEOUT_S = 1800


def main(arguments: list[str]) -> int:
    """Shows that the sanitizer finds a planted error, then runs the tests under each of its tools."""
    home = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    program = shutil.which(_PROGRAM) or shutil.which(home / "bin" / _PROGRAM)
    if program is None:
        return _say(f"{_PROGRAM} is not installed: nothing was checked by it", 0)
    probe = _run(program, "memcheck", [str(Path(__file__).with_name("past_end.py"))])
    if probe.returncode != _FOUND or "Invalid __global__ write" not in probe.stdout:
        last = ((probe.stdout + probe.stderr).strip().splitlines() or ["it said nothing"])[-1]
        return _say(f"{_PROGRAM} does not find a planted error on this machine: nothing was checked by it; {last}", 0)
    for tool in TOOLS:
        try:
            done = _run(program, tool, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments])
        except subprocess.TimeoutExpired:
            return _say(f"{_PROGRAM} --tool {tool}: stopped after {_TIMEOUT_S} s; choose fewer tests by -k", 1)
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            return _say(f"{_PROGRAM} --tool {tool}: status {done.returncode}", 1)
        _say(f"{_PROGRAM} --tool {tool}: clean; {done.stdout.strip().splitlines()[-1]}", 0)
    return 0


def _run(program: str, tool: str, words: list[str]) -> "subprocess.CompletedProcess[str]":
    options = ["--tool", tool, "--error-exitcode", str(_FOUND), "--target-processes", "application-only"]
    return subprocess.run(
        [program, *options, sys.executable, *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )


def _say(line: str, status: int) -> int:
    sys.stderr.write(line + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
