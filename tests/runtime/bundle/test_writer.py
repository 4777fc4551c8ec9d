import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawline.runtime import bundle
from flawline.runtime.errors import BundleError, InputError

NAMES = ["features.onnx", "golden.safetensors", "manifest.json", "manifest.sha256", "statistics.safetensors"]

# Writes a bundle of more than 64 KiB where there is less room, and prints the error and what is left.
FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
import safetensors
from flawline.runtime import bundle
from flawline.runtime.errors import FlawlineError
exec(sys.argv[2])
source, target = bundle.read(sys.argv[1]), Path(sys.argv[3])
try:
    bundle.write(target, source.manifest, bytes(200_000), source.statistics, source.golden)
except FlawlineError as error:
    print(type(error).__name__, error)
print(sorted(path.name for path in target.parent.iterdir()))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_writes_of_the_same_content_give_identical_bytes(parts: Any, tmp_path: Path) -> None:
    first = parts().write(tmp_path / "first")
    second = parts().write(tmp_path / "second")
    assert contents(first.path) == contents(second.path)
    assert first.hash == second.hash


def test_bytes_do_not_depend_on_the_order_of_the_statistics(parts: Any, tmp_path: Path) -> None:
    given = parts()
    reversed_order = given.with_statistics()
    reversed_order = type(given)(given.manifest, given.features, dict(reversed(given.statistics.items())), given.golden)
    assert contents(given.write(tmp_path / "a").path) == contents(reversed_order.write(tmp_path / "b").path)


def test_writing_leaves_exactly_the_files_of_a_bundle(written: bundle.Bundle) -> None:
    assert sorted(contents(written.path)) == NAMES
    assert [path.name for path in written.path.parent.iterdir()] == [written.path.name]


def test_the_umask_decides_who_may_read_a_bundle(parts: Any, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        written = parts().write(tmp_path / "bundle")
    finally:
        os.umask(before)
    assert written.path.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in written.path.iterdir()} == {0o640}


def test_a_bundle_can_be_written_again_from_what_was_read(written: bundle.Bundle, tmp_path: Path) -> None:
    again = bundle.write(tmp_path / "again", written.manifest, written.features, written.statistics, written.golden)
    assert again.hash == written.hash


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_existing_path_is_refused_and_left_alone(parts: Any, tmp_path: Path, make: Any) -> None:
    target = tmp_path / "bundle"
    make(target)
    before = target.lstat()
    with pytest.raises(InputError, match="bundle exists; choose another name for the bundle or remove it first"):
        parts().write(target)
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert list(tmp_path.iterdir()) == [target]


def test_missing_parent_is_refused(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="absent is not a folder that can be written to; expected one to put bundle into"
    ):
        parts().write(tmp_path / "absent" / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused(parts: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="is not a folder that can be written to"):
        parts().write(tmp_path / "bundle")


def test_bundle_without_a_golden_frame_is_refused(parts: Any, tmp_path: Path) -> None:
    given = parts()
    with pytest.raises(InputError, match="needs at least one golden frame"):
        bundle.write(tmp_path / "bundle", given.manifest, given.features, given.statistics, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": np.zeros((6, 1, 4), np.float32)}, r"tensor means is float32 \(6, 1, 4\)"),
        ({"means": np.full((6, 1, 5), np.nan, np.float32)}, "tensor means holds NaN"),
        ({"factors": None}, "lacks the tensor factors"),
    ],
)
def test_parts_that_contradict_each_other_leave_nothing_behind(
    parts: Any, tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        parts().with_statistics(**change).write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_threshold_that_is_not_a_number_leaves_nothing_behind(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"Expected `float`, got `null` - at `\$.threshold.score`"):
        parts().with_manifest(threshold={"score": float("nan")}).write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_file_larger_than_allowed_is_a_clear_error_and_leaves_nothing_behind(
    written: bundle.Bundle, tmp_path: Path
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"
    target = tmp_path / "room" / "bundle"
    target.parent.mkdir()
    command = [sys.executable, "-c", FULL_DISK, str(written.path), limit, str(target)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert lines[0].startswith(
        f"ResourceError {target} cannot be written: {os.strerror(errno.EFBIG)}; nothing was kept"
    )
    assert lines[1:] == ["[]"]


def test_full_disk_is_a_clear_error_and_leaves_nothing_behind(written: bundle.Bundle, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    # In a mount namespace of its own: no other process sees this disk, and it ends with the process.
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    mount += ['mount -t tmpfs -o size=64k none "$0" && exec "$@"', str(room)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, timeout=60).returncode:
        pytest.skip("this process may not mount a small file system")
    command = [*mount, sys.executable, "-c", FULL_DISK, str(written.path), "", str(room / "bundle")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert lines[0].startswith(
        f"ResourceError {room / 'bundle'} cannot be written: {os.strerror(errno.ENOSPC)}; nothing was kept"
    )
    assert lines[1:] == ["[]"]


def test_a_killed_writer_leaves_no_bundle_under_the_name(parts: Any, tmp_path: Path) -> None:
    written = parts().write(tmp_path / "source")
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from flawline.runtime import bundle\n"
        "source = bundle.read(sys.argv[1])\n"
        "class Killer(dict):\n"
        "    def items(self):\n"
        "        os.kill(os.getpid(), 9)\n"
        "bundle.write(Path(sys.argv[2]), source.manifest, source.features, Killer(source.statistics), source.golden)\n"
    )
    target = tmp_path / "bundle"
    result = subprocess.run([sys.executable, "-c", script, str(written.path), str(target)], timeout=60, check=False)
    assert result.returncode == -9
    assert not target.exists()
    left = [path.name for path in tmp_path.iterdir() if path != written.path]
    assert len(left) == 1
    assert left[0].startswith(".bundle.")
    assert left[0].endswith(".partial")
