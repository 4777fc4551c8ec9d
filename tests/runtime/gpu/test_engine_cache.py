"""Engine files say what they are for, and nothing else is run with them."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flawline.runtime.errors import EngineError, InputError
from flawline.runtime.gpu.engine_cache import (
    Engine,
    EngineKey,
    EngineOptions,
    cache_path,
    read_engine,
    timing_cache_path,
    write_engine,
)

KEY = EngineKey(
    bundle="0123456789ab" + "c" * 52,
    precision="fp16",
    batch=4,
    height=64,
    width=48,
    tensorrt="10.3.0",
    device="Orin (nvgpu)",
    compute_capability=(8, 7),
    multiprocessors=8,
    memory_gib=16,
)
ENGINE = Engine(EngineOptions(workspace_mb=64, dla_core=0), bytes(range(256)) * 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "made.engine"
    write_engine(path, KEY, ENGINE)
    return path


def other(**fields: Any) -> EngineKey:
    return msgspec.structs.replace(KEY, **fields)


def test_what_was_written_is_read(path: Path) -> None:
    assert read_engine(path, KEY) == ENGINE


def test_an_engine_for_more_frames_serves_fewer(path: Path) -> None:
    assert read_engine(path, other(batch=3)) == ENGINE


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (other(bundle="f" * 64), "was built for bundle 0123456789ab; expected one for bundle ffffffffffff"),
        (other(precision="fp32"), "was built for precision fp16; expected one for precision fp32"),
        (other(batch=5), "was built for 4 frames at once; expected one for 5 frames at once"),
        (other(tensorrt="10.7.0"), "was built for TensorRT 10.3.0; expected one for TensorRT 10.7.0"),
        (other(device="NVIDIA Thor"), r"was built for Orin \(nvgpu\); expected one for NVIDIA Thor"),
        (
            other(compute_capability=(9, 0)),
            "was built for compute capability 8.7; expected one for compute capability 9.0",
        ),
        (other(height=32), "was built for a height of 64 px; expected one for a height of 32 px"),
        (other(width=64), "was built for a width of 48 px; expected one for a width of 64 px"),
        (other(multiprocessors=4), "was built for 8 multiprocessors; expected one for 4 multiprocessors"),
        (other(memory_gib=8), "was built for 16 GiB of memory; expected one for 8 GiB of memory"),
        (other(output="saliency"), "was built for all outputs; expected one for the output saliency"),
        (
            other(tensorrt="11.0", device="Thor"),
            r"was built for TensorRT 10.3.0, Orin \(nvgpu\); expected one for TensorRT 11.0, Thor",
        ),
    ],
)
def test_an_engine_for_something_else_is_refused_with_the_reason(wanted: EngineKey, message: str, path: Path) -> None:
    with pytest.raises(EngineError, match=f"{message}: build it again with `flawline export BUNDLE --to engine`"):
        read_engine(path, wanted)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, "is damaged: not the bytes that were written"),
        (lambda data: data[:-1], "is damaged: not the bytes that were written"),
        (lambda data: data + b"\0", "is damaged: not the bytes that were written"),
        (lambda data: data[: data.index(b"{") + 9], "is damaged: Input data was truncated"),
        (lambda data: data.replace(b'"fp16"', b'"fp17"'), "is damaged: Invalid enum value 'fp17'"),
        (lambda data: data.replace(b'"batch":4', b'"batch":0'), "is damaged: Expected `int` >= 1"),
        (lambda data: data.replace(b"Orin", b"Or\xffn"), "is damaged: "),
        (lambda data: b"flawline engine 3\n" + b" " * 100_000, "is damaged: Input data was truncated"),
        (lambda data: data.replace(b"engine 3", b"engine 1", 1), "is of format 1; this version reads format 3"),
        (
            lambda data: data.partition(b"}\n")[2],
            "is none that Flawline built; a plan alone does not say what it is for",
        ),
        (lambda data: b"", "is none that Flawline built"),
        (lambda data: bytes(1 << 20), "is none that Flawline built"),
    ],
)
def test_a_damaged_engine_is_refused(damage: Callable[[bytes], bytes], message: str, path: Path) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EngineError, match=message):
        read_engine(path, KEY)


@pytest.mark.parametrize("plan", [b"", ENGINE.plan * 2], ids=["less", "more"])
def test_a_plan_of_another_length_than_was_written_is_not_read(plan: bytes, path: Path) -> None:
    """Not even where the hash is that of what is read."""
    header, _, _ = path.read_bytes().partition(b"}\n")
    digest = hashlib.sha256(b"").hexdigest().encode()
    path.write_bytes(re.sub(rb'"plan_sha256":"\w+"', b'"plan_sha256":"' + digest + b'"', header) + b"}\n" + plan)
    with pytest.raises(EngineError, match="is damaged: not the bytes that were written"):
        read_engine(path, KEY)


def test_a_missing_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.engine cannot be read: No such file or directory; build it again"):
        read_engine(tmp_path / "none.engine", KEY)


def test_an_engine_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"away/made\.engine cannot be written"):
        write_engine(tmp_path / "away/made.engine", KEY, ENGINE)


def test_the_cache_tells_apart_what_must_not_be_confused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (
        cache_path(KEY)
        == tmp_path / "flawline/engines/0123456789ab.fp16.batch4.64x48.trt10.3.0.sm87x8.16gib.orin-nvgpu.engine"
    )
    assert timing_cache_path(KEY) == tmp_path / "flawline/engines/trt10.3.0.sm87x8.16gib.orin-nvgpu.timings"
    others = [
        other(bundle="f" * 64),
        other(precision="fp32"),
        other(batch=5),
        other(tensorrt="10.7.0"),
        other(device="Thor"),
        other(compute_capability=(9, 0)),
        other(height=32),
        other(width=64),
        other(multiprocessors=4),
        other(memory_gib=8),
        other(output="saliency"),
    ]
    assert len({cache_path(key) for key in (KEY, *others)}) == 12
    assert len({timing_cache_path(key) for key in (KEY, *others)}) == 6
