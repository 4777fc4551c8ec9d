import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawline.runtime import bundle
from flawline.runtime.bundle import tensors
from flawline.runtime.errors import BundleError, NewerFormatError, NotABundleError

NAMES = ["manifest.sha256", "manifest.json", "features.onnx", "statistics.safetensors", "golden.safetensors"]


@pytest.mark.parametrize("tie", ["position", "column", "global"])
@pytest.mark.parametrize("kind", ["gaussian", "orthogonal", "sparse", "select", "none"])
@pytest.mark.parametrize(("channels", "factors", "components"), [(1, "fp16", 1), (3, "fp32", 3)])
def test_a_bundle_is_read_as_it_was_written(
    parts: Any, tmp_path: Path, tie: str, kind: str, channels: int, factors: str, components: int
) -> None:
    given = parts(tie=tie, kind=kind, channels=channels, factors=factors, components=components)
    given.write(tmp_path / "bundle")
    opened = bundle.read(tmp_path / "bundle")
    assert opened.features == given.features
    assert opened.statistics.keys() == given.statistics.keys()
    for name, array in given.statistics.items():
        np.testing.assert_array_equal(opened.statistics[name], array, strict=True)
    assert len(opened.golden) == len(given.golden)
    for received, expected in zip(opened.golden, given.golden, strict=True):
        np.testing.assert_array_equal(received.frame, expected.frame, strict=True)
        np.testing.assert_array_equal(received.map, expected.map, strict=True)
        assert received.score == expected.score


def test_hash_and_size_are_those_of_the_files(written: bundle.Bundle) -> None:
    data = (written.path / "manifest.json").read_bytes()
    assert written.hash == hashlib.sha256(data).hexdigest()
    assert (written.path / "manifest.sha256").read_text() == f"{written.hash}\n"
    assert written.total_bytes == sum(path.stat().st_size for path in written.path.iterdir())


def test_factors_are_mapped_read_only_and_aligned(written: bundle.Bundle) -> None:
    factors = bundle.read(written.path).statistics["factors"]
    assert not factors.flags.writeable
    assert not factors.flags.owndata
    assert factors.ctypes.data % 64 == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much of a mapping is resident")
def test_what_was_only_verified_or_copied_is_not_kept_in_memory(written: bundle.Bundle) -> None:
    opened = bundle.read(written.path)
    assert resident_bytes(written.path / "features.onnx") == 0
    assert opened.features
    assert resident_bytes(written.path / "features.onnx") == 0
    opened.statistics["factors"].copy()
    assert resident_bytes(written.path / "statistics.safetensors") > 0


def resident_bytes(path: Path) -> int:
    """How much of a file's mappings lies in this process's memory."""
    total, is_of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *words = line.split()
        if not name.endswith(":"):
            is_of_file = line.endswith(f" {path}")
        elif name == "Rss:" and is_of_file:
            total += int(words[0]) * 1024
    return total


def test_arrays_outlive_the_bundle_and_its_folder(written: bundle.Bundle) -> None:
    opened = bundle.read(written.path)
    scores, expected = opened.statistics["calibration_scores"], written.statistics["calibration_scores"].copy()
    del opened
    shutil.rmtree(written.path)
    np.testing.assert_array_equal(scores, expected)


def test_no_file_stays_open_after_a_refusal(written: bundle.Bundle) -> None:
    (written.path / "golden.safetensors").write_bytes(b"damaged")
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(20):
        with pytest.raises(BundleError):
            bundle.read(written.path)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_opening_keeps_the_factors_out_of_the_heap(parts: Any, tmp_path: Path) -> None:
    parts(size=(16, 25), depth=120, dimension=100).write(tmp_path / "bundle")
    script = (
        "import sys, tracemalloc, safetensors\n"
        "from flawline.runtime import bundle\n"
        "tracemalloc.start()\n"
        "opened = bundle.read(sys.argv[1])\n"
        "print(tracemalloc.get_traced_memory()[1], opened.statistics['factors'].nbytes)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "bundle"], capture_output=True, text=True, check=True, timeout=60
    )
    peak_bytes, factor_bytes = map(int, result.stdout.split())
    assert factor_bytes > 4_000_000
    assert peak_bytes < 500_000


def test_a_link_to_a_bundle_is_followed(written: bundle.Bundle, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(written.path)
    assert bundle.read(link).hash == written.hash


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotABundleError, match="does not exist; expected the folder of a bundle"):
        bundle.read(tmp_path / "absent")


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotABundleError, match="is a file; expected the folder of a bundle"):
        bundle.read(tmp_path / "file")


def test_folder_of_other_things_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(NotABundleError, match=r"holds neither manifest\.json nor manifest\.sha256"):
        bundle.read(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_missing_file_is_refused(written: bundle.Bundle, name: str) -> None:
    (written.path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing; a bundle must hold it"):
        bundle.read(written.path)


@pytest.mark.parametrize("name", NAMES)
def test_symbolic_link_is_refused(written: bundle.Bundle, tmp_path: Path, name: str) -> None:
    (written.path / name).rename(tmp_path / name)
    (written.path / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleError, match=f"{name} is a symbolic link"):
        bundle.read(written.path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipe_or_folder_in_place_of_a_file_is_refused(
    written: bundle.Bundle, name: str, make: Callable[[Path], None]
) -> None:
    (written.path / name).unlink()
    make(written.path / name)
    with pytest.raises(BundleError, match=f"{name} is not a regular file"):
        bundle.read(written.path)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "FEATURES.onnx", "features.onnx.data", "x\x1b[2Jy", "\udcff"])
def test_unlisted_file_is_refused(written: bundle.Bundle, name: str) -> None:
    (written.path / name).write_bytes(b"x")
    with pytest.raises(BundleError, match="is not listed in the manifest") as caught:
        bundle.read(written.path)
    assert str(caught.value).isprintable()


def test_unlisted_folder_is_refused(written: bundle.Bundle) -> None:
    (written.path / "sub").mkdir()
    with pytest.raises(BundleError, match="sub' is not listed in the manifest"):
        bundle.read(written.path)


def test_a_further_listed_file_is_verified_and_otherwise_left_alone(
    written: bundle.Bundle, forge: Callable[[Path, bytes], None]
) -> None:
    extra = written.path / "features.int8.onnx"
    extra.write_bytes(b"later")
    fields = json.loads((written.path / "manifest.json").read_bytes())
    fields["files"][extra.name] = {"size": 5, "sha256": hashlib.sha256(b"later").hexdigest()}
    forge(written.path, json.dumps(fields).encode())
    bundle.read(written.path)
    extra.write_bytes(b"Later")
    with pytest.raises(BundleError, match=r"features\.int8\.onnx has the SHA-256"):
        bundle.read(written.path)


@pytest.mark.parametrize("name", NAMES[2:])
def test_file_that_the_manifest_does_not_list_but_every_bundle_holds_is_refused(
    written: bundle.Bundle, forge: Callable[[Path, bytes], None], name: str
) -> None:
    fields = json.loads((written.path / "manifest.json").read_bytes())
    del fields["files"][name]
    forge(written.path, json.dumps(fields).encode())
    with pytest.raises(BundleError, match=f"does not list {name}, which a bundle in fp32 holds"):
        bundle.read(written.path)


@pytest.mark.parametrize("name", NAMES[:2])
def test_manifest_that_lists_itself_is_refused(
    written: bundle.Bundle, forge: Callable[[Path, bytes], None], name: str
) -> None:
    fields = json.loads((written.path / "manifest.json").read_bytes())
    fields["files"][name] = {"size": 5, "sha256": "0" * 64}
    forge(written.path, json.dumps(fields).encode())
    with pytest.raises(BundleError, match=f"lists {name}, which cannot hold its own hash"):
        bundle.read(written.path)


@pytest.mark.parametrize("name", NAMES[2:])
def test_wrong_size_is_refused(written: bundle.Bundle, name: str) -> None:
    path = written.path / name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BundleError, match=rf"{name} holds \d+ bytes; the manifest says \d+"):
        bundle.read(written.path)


@pytest.mark.parametrize("name", NAMES[2:])
def test_wrong_hash_is_refused(written: bundle.Bundle, name: str) -> None:
    path = written.path / name
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BundleError, match=rf"{name} has the SHA-256 [0-9a-f]+; the manifest says"):
        bundle.read(written.path)


def test_changed_manifest_is_refused(written: bundle.Bundle) -> None:
    path = written.path / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"padim"', b'"pedim"'))
    with pytest.raises(BundleError, match=r"manifest\.json has the SHA-256 [0-9a-f]+; manifest\.sha256 says"):
        bundle.read(written.path)


@pytest.mark.parametrize(
    "text", ["", "0" * 64, "0" * 65, "0" * 63 + "\n", "A" * 64 + "\n", "0" * 64 + "\r\n", "g" * 64 + "\n"]
)
def test_malformed_manifest_hash_is_refused(written: bundle.Bundle, text: str) -> None:
    (written.path / "manifest.sha256").write_bytes(text.encode())
    with pytest.raises(BundleError, match="is not 64 lower-case hexadecimal digits and a newline"):
        bundle.read(written.path)


def test_manifest_beyond_its_cap_is_refused_unread(written: bundle.Bundle) -> None:
    with (written.path / "manifest.json").open("r+b") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(BundleError, match="holds 1048577 bytes; expected at most 1048576"):
        bundle.read(written.path)


def test_newer_major_version_is_refused_by_number(written: bundle.Bundle, forge: Callable[[Path, bytes], None]) -> None:
    forge(written.path, b'{"format": {"major": 3, "minor": 0}}')
    with pytest.raises(NewerFormatError, match=r"is of format 3\.0, this version reads format 1"):
        bundle.read(written.path)


def forged(parts: Any, tmp_path: Path, reseal: Callable[[Path], None], **changes: np.ndarray | None) -> Path:
    """A bundle whose statistics were exchanged, with right hashes."""
    folder = tmp_path / "bundle"
    parts.write(folder)
    changed = parts.with_statistics(**changes).statistics
    (folder / "statistics.safetensors").unlink()
    with (folder / "statistics.safetensors").open("wb") as file:
        tensors.write(file, changed)
    reseal(folder)
    return folder


@pytest.mark.parametrize("name", ["means", "factors", "scales", "assignment", "calibration_scores", "projection"])
def test_missing_tensor_is_refused(parts: Any, tmp_path: Path, reseal: Callable[[Path], None], name: str) -> None:
    with pytest.raises(BundleError, match=f"lacks the tensor {name}"):
        bundle.read(forged(parts(), tmp_path, reseal, **{name: None}))


def test_unknown_tensor_is_refused(parts: Any, tmp_path: Path, reseal: Callable[[Path], None]) -> None:
    with pytest.raises(BundleError, match="holds the tensor more; the manifest promises"):
        bundle.read(forged(parts(), tmp_path, reseal, more=np.zeros(1, np.float32)))


def test_projection_matrix_without_a_projection_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None]
) -> None:
    with pytest.raises(BundleError, match="holds the tensor projection; the manifest promises"):
        bundle.read(forged(parts(kind="none"), tmp_path, reseal, projection=np.zeros((12, 12), np.float32)))


@pytest.mark.parametrize("name", ["means", "factors", "scales", "assignment", "calibration_scores", "projection"])
def test_tensor_of_another_shape_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None], name: str
) -> None:
    shorter = parts().statistics[name][:-1]
    with pytest.raises(BundleError, match=rf"tensor {name} is .*; the manifest promises"):
        bundle.read(forged(parts(), tmp_path, reseal, **{name: shorter}))


@pytest.mark.parametrize(
    ("name", "dtype"), [("means", "f2"), ("factors", "f4"), ("assignment", "f4"), ("projection", "f8")]
)
def test_tensor_of_another_dtype_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None], name: str, dtype: str
) -> None:
    with pytest.raises(BundleError, match=rf"tensor {name} is {np.dtype(dtype)} "):
        bundle.read(forged(parts(), tmp_path, reseal, **{name: parts().statistics[name].astype(dtype)}))


@pytest.mark.parametrize("name", ["means", "factors", "scales", "calibration_scores", "projection"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tensor_that_is_not_finite_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None], name: str, value: float
) -> None:
    poisoned = parts().statistics[name].copy()
    poisoned.flat[-1] = value
    with pytest.raises(BundleError, match=f"tensor {name} holds NaN or infinity"):
        bundle.read(forged(parts(), tmp_path, reseal, **{name: poisoned}))


@pytest.mark.parametrize("value", [0, -1])
def test_scale_that_is_not_positive_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None], value: float
) -> None:
    with pytest.raises(BundleError, match=r"tensor scales holds .*; expected numbers above 0"):
        bundle.read(forged(parts(), tmp_path, reseal, scales=np.full((6, 1), value, np.float32)))


@pytest.mark.parametrize("value", [-1, 6, 2**31 - 1])
def test_assignment_out_of_range_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None], value: int
) -> None:
    with pytest.raises(BundleError, match=f"assignment names Gaussian {value}; expected 0 to 5"):
        bundle.read(forged(parts(), tmp_path, reseal, assignment=np.array([0, 1, 2, 3, 4, value], np.int32)))


def test_calibration_scores_out_of_order_are_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None]
) -> None:
    scores = parts().statistics["calibration_scores"][::-1]
    with pytest.raises(BundleError, match="calibration_scores is not in ascending order"):
        bundle.read(forged(parts(), tmp_path, reseal, calibration_scores=scores))


@pytest.mark.parametrize("value", [2, -2, -128])
def test_sparse_projection_of_other_numbers_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None], value: int
) -> None:
    with pytest.raises(BundleError, match="of kind sparse holds numbers other than -1, 0 and 1"):
        bundle.read(forged(parts(kind="sparse"), tmp_path, reseal, projection=np.full((5, 12), value, np.int8)))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0, 1, 2, 3, 12], "outside 0 to 11"),
        ([-1, 1, 2, 3, 4], "outside 0 to 11"),
        ([0, 1, 2, 3, 3], "a channel twice"),
    ],
)
def test_selection_of_wrong_channels_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None], chosen: list[int], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        bundle.read(forged(parts(kind="select"), tmp_path, reseal, projection=np.array(chosen, np.int32)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, "lacks the tensor scores"),
        ({"scores": np.zeros((2, 1), np.float32)}, "lacks the tensor scores of one axis"),
        ({"scores": np.zeros(3, np.float32)}, r"tensor frame\.2 is missing"),
        ({"scores": np.zeros(1, np.float32)}, r"holds the tensor frame\.1"),
        ({"scores": np.zeros(2, np.float64)}, "tensor scores is float64"),
        ({"scores": np.array([0, np.nan], np.float32)}, "tensor scores holds NaN or infinity"),
        ({"map.0": None}, r"lacks the tensor map\.0"),
        ({"map.0": np.zeros((3, 2), np.float32)}, r"tensor map\.0 is float32 \(3, 2\)"),
        ({"map.1": np.full((2, 3), np.inf, np.float32)}, r"tensor map\.1 holds NaN or infinity"),
        ({"frame.0": np.zeros((4, 5, 3), np.uint8)}, r"frame\.0 is of shape \(4, 5, 3\); expected \(height, width\)"),
        ({"frame.0": np.zeros(5, np.uint8)}, r"frame\.0 is of shape \(5,\); expected \(height, width\)"),
        ({"frame.0": np.zeros((4, 5), np.float32)}, r"tensor frame\.0 is float32"),
        ({"more": np.zeros(1, np.uint8)}, "holds the tensor more"),
    ],
)
def test_golden_frames_that_break_a_rule_are_refused(
    written: bundle.Bundle, reseal: Callable[[Path], None], change: dict[str, np.ndarray | None], message: str
) -> None:
    path = written.path / "golden.safetensors"
    merged = {**tensors.load(path.read_bytes(), "golden"), **change}
    path.unlink()
    with path.open("wb") as file:
        tensors.write(file, {name: array for name, array in merged.items() if array is not None})
    reseal(written.path)
    with pytest.raises(BundleError, match=message):
        bundle.read(written.path)


def test_grey_golden_frame_in_a_colour_bundle_is_refused(
    parts: Any, tmp_path: Path, reseal: Callable[[Path], None]
) -> None:
    written = parts(channels=3).write(tmp_path / "bundle")
    path = written.path / "golden.safetensors"
    merged = {**tensors.load(path.read_bytes(), "golden"), "frame.0": np.zeros((4, 5), np.uint8)}
    path.unlink()
    with path.open("wb") as file:
        tensors.write(file, merged)
    reseal(written.path)
    with pytest.raises(BundleError, match=r"frame\.0 is of shape \(4, 5\); expected \(height, width, 3\)"):
        bundle.read(written.path)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is locked by Linux's mlockall")
def test_a_program_that_locked_its_memory_reads_a_bundle(written: bundle.Bundle) -> None:
    script = f"""
import ctypes, os, sys
from flawline.runtime import bundle
MCL_FUTURE = 2
libc = ctypes.CDLL(None, use_errno=True)
if libc.mlockall(MCL_FUTURE):
    sys.exit("not locked: " + os.strerror(ctypes.get_errno()))
print(bundle.read({str(written.path)!r}).hash)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    if done.stderr.startswith("not locked: "):
        pytest.skip(f"this process may not lock its memory: {done.stderr.strip()}")
    assert (done.stdout, done.returncode) == (f"{written.hash}\n", 0), done.stderr
