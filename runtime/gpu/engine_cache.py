"""Built engines on disk: each says what it was built from and for, and none is run for anything else.

An engine file is a line that names the format, a line of JSON and TensorRT's plan. Its hash finds damage, not malice: a plan
is code, to be taken only from where one would take a program.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from flawline.runtime import files
from flawline.runtime.bundle.manifest import Count, Sha256, Text
from flawline.runtime.errors import EngineError
from flawline.runtime.precisions import Precision

_VERSION = 3
_FORMAT = b"flawline engine %d\n" % _VERSION
_HEADER_CAP_BYTES = 1 << 14
_AGAIN = "build it again with `flawline export BUNDLE --to engine`"


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine was built from and for."""

    bundle: Sha256
    """Hash of the bundle."""
    precision: Precision
    batch: Count
    """Most frames that it takes at once."""
    height: Count
    width: Count
    """Of its input, px: windows of a web may have any size, an engine is for one."""
    tensorrt: Text
    """Version of TensorRT."""
    device: Text
    """Name of the GPU."""
    compute_capability: tuple[int, int]
    multiprocessors: Count
    """Of the GPU. Modules of one family, which all go by one name, differ in this and in memory."""
    memory_gib: Count
    """Memory of the GPU, rounded up to a multiple of 4 GiB, since the system keeps a part that is not always the same."""
    output: Text | None = None
    """The one output of the network that it gives, where the bundle's other maps are made of another; None for all."""


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What shapes an engine besides what it is built from and for."""

    workspace_mb: Annotated[int, Meta(ge=1)] | None = None
    """Scratch memory that a layer may take, in MB of 2^20 bytes; all that the device has if None."""
    dla_core: Annotated[int, Meta(ge=0)] | None = None
    """Deep learning accelerator that runs what it can of the network; None for the GPU alone."""


class Engine(NamedTuple):
    """A built engine.

    Attributes:
        options: What it was built with.
        plan: What TensorRT deserialises.
    """

    options: EngineOptions
    plan: bytes


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    key: EngineKey
    options: EngineOptions
    plan_bytes: Count
    plan_sha256: Sha256


def engines_folder() -> Path:
    """Where engines are kept that have no other place: `flawline/engines` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flawline" / "engines"


def cache_path(key: EngineKey) -> Path:
    """Where the cache keeps an engine; the name tells apart what lies side by side, what the file says is what counts."""
    frames = f"batch{key.batch}.{key.height}x{key.width}" + ("" if key.output is None else f".{key.output}")
    return engines_folder() / f"{key.bundle[:12]}.{key.precision}.{frames}.{_place(key)}.engine"


def timing_cache_path(key: EngineKey) -> Path:
    """Where the cache keeps what TensorRT has measured on a device; the next engine is then built in less time."""
    return engines_folder() / f"{_place(key)}.timings"


def write_engine(path: Path, key: EngineKey, engine: Engine) -> None:
    """Writes an engine, whole or not at all.

    Args:
        path: File to make or replace.
        key: What it was built from and for.
        engine: The engine.

    Raises:
        ResourceError: The disk is full.
        InputError: The folder does not exist or may not be written to.
    """
    digest = hashlib.sha256(engine.plan).hexdigest()
    header = _Header(key=key, options=engine.options, plan_bytes=len(engine.plan), plan_sha256=digest)
    files.write_whole(path, b"".join((_FORMAT, msgspec.json.encode(header), b"\n", engine.plan)))


def read_engine(path: Path, wanted: EngineKey) -> Engine:
    """Reads an engine that may be used here.

    Args:
        path: File that `write_engine` wrote.
        wanted: What it must have been built from and for; for as many frames or more.

    Raises:
        EngineError: It is missing, damaged or none that `write_engine` wrote, or was built from or for something else.
    """
    try:
        with path.open("rb") as file:
            header = _read_header(file.readline(_HEADER_CAP_BYTES), file.readline(_HEADER_CAP_BYTES))
            # Before the plan, of which there may be a gigabyte.
            _require_same(path, header.key, wanted)
            whole = os.fstat(file.fileno()).st_size - file.tell() == header.plan_bytes
            plan = file.read() if whole else b""
    except OSError as error:
        raise EngineError(f"engine {path} cannot be read: {error.strerror}; {_AGAIN}") from error
    except ValueError as error:
        raise EngineError(f"engine {path} {error}; {_AGAIN}") from error
    if not whole or hashlib.sha256(plan).hexdigest() != header.plan_sha256:
        raise EngineError(f"engine {path} is damaged: not the bytes that were written; {_AGAIN}")
    return Engine(header.options, plan)


def _require_same(path: Path, built: EngineKey, wanted: EngineKey) -> None:
    differences = _differences(built, wanted)
    if differences:
        theirs, ours = (", ".join(side) for side in zip(*differences, strict=True))
        raise EngineError(f"engine {path} was built for {theirs}; expected one for {ours}: {_AGAIN}")


def _read_header(first: bytes, second: bytes) -> _Header:
    """Raises ValueError with what is wrong, as the end of a sentence about the file."""
    if first != _FORMAT:
        known = re.fullmatch(rb"flawline engine (\d{1,9})\n", first)
        if known is None:
            raise ValueError("is none that Flawline built; a plan alone does not say what it is for")
        raise ValueError(f"is of format {known[1].decode()}; this version reads format {_VERSION}")
    try:
        return msgspec.json.decode(second, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"is damaged: {error}") from error


def _differences(built: EngineKey, wanted: EngineKey) -> list[tuple[str, str]]:
    """What an engine was built for and what is wanted, where that is not the same."""
    theirs, ours = _texts(built), _texts(wanted)
    differ = [name for name in theirs if getattr(built, name) != getattr(wanted, name)]
    if built.batch < wanted.batch:
        theirs["batch"], ours["batch"] = (f"{key.batch} frames at once" for key in (built, wanted))
        differ.append("batch")
    return [(theirs[name], ours[name]) for name in differ]


def _texts(key: EngineKey) -> dict[str, str]:
    major, minor = key.compute_capability
    return {
        "bundle": f"bundle {key.bundle[:12]}",
        "precision": f"precision {key.precision}",
        "tensorrt": f"TensorRT {key.tensorrt}",
        "device": key.device,
        "compute_capability": f"compute capability {major}.{minor}",
        "height": f"a height of {key.height} px",
        "width": f"a width of {key.width} px",
        "multiprocessors": f"{key.multiprocessors} multiprocessors",
        "memory_gib": f"{key.memory_gib} GiB of memory",
        "output": "all outputs" if key.output is None else f"the output {key.output}",
    }


def _place(key: EngineKey) -> str:
    """TensorRT and GPU, as a part of a file's name."""
    arch = "{}{}".format(*key.compute_capability)
    words = f"trt{key.tensorrt}.sm{arch}x{key.multiprocessors}.{key.memory_gib}gib.{key.device.lower()}"
    return re.sub(r"[^a-z0-9.]+", "-", words).strip("-.")
