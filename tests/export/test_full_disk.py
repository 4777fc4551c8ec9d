"""`flawline export` on a disk that fills up while it writes: one line, and nothing is left there."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Run:
    """Runs `flawline` with its output on a disk of some KiB: status, lines of standard error, what is left there."""
    room = tmp_path / "room"
    room.mkdir()

    def run(size_kib: int, *words: object) -> tuple[int, list[str], list[str]]:
        # In a mount namespace of its own: no other process sees this disk, and it ends with the process.
        namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
        mount = f'mount -t tmpfs -o size={size_kib}k none "$0" && cd "$0"'
        trial = [*namespace, mount, str(room)]
        if shutil.which("unshare") is None or subprocess.run(trial, capture_output=True, timeout=60).returncode:
            pytest.skip("this process may not mount a small file system")
        script = f'{mount} || exit 99; "$@"; status=$?; ls -A; exit $status'
        command = [*namespace, script, str(room), sys.executable, "-m", "flawline", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stderr.splitlines(), done.stdout.splitlines()

    return run


def refusal(target: str) -> str:
    return f"flawline export: {target} cannot be written: {os.strerror(errno.ENOSPC)}; nothing was kept"


def test_a_further_precision_leaves_nothing_on_a_full_disk(
    on_small_disk: Run, tiny_bundle: Path, good_images: Path
) -> None:
    # Room for the graph, not for all of the statistics.
    words = ("--precision", "int8", "--images", good_images, "--out", "int8.flaw", "--threads", 1)
    status, errors, left = on_small_disk(64, "export", tiny_bundle, *words)
    assert status == 2
    assert errors[-1].startswith(refusal("int8.flaw"))
    assert sum(line.startswith("flawline export: ") for line in errors) == 1
    assert "Traceback" not in "".join(errors)
    assert left == []


def test_a_standalone_file_leaves_nothing_on_a_full_disk(on_small_disk: Run, tiny_bundle: Path) -> None:
    words = ("--to", "standalone", "--out", "tiny.onnx", "--threads", 1)
    status, errors, left = on_small_disk(16, "export", tiny_bundle, *words)
    assert status == 2
    assert len(errors) == 1
    assert errors[0].startswith(refusal("tiny.onnx"))
    assert left == []
