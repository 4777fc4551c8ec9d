"""Writes a bundle: whole and durable under its name, or not at all."""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from flawline.runtime import files
from flawline.runtime.bundle import contents, tensors
from flawline.runtime.bundle.contents import Golden
from flawline.runtime.bundle.manifest import AnyManifest, FileEntry, encode
from flawline.runtime.bundle.reader import MANIFEST, MANIFEST_HASH, Bundle, read
from flawline.runtime.errors import BundleError, InputError
from flawline.runtime.precisions import Precision


class Payload(NamedTuple):
    """What the files of one precision hold.

    Attributes:
        features: The feature graph, one self-contained ONNX file.
        statistics: Tensors by name (FORMAT.md, "Statistics").
        golden: At least one frame with its score and map.
    """

    features: bytes
    statistics: Mapping[str, NDArray[Any]]
    golden: Sequence[Golden]


def write(
    path: str | os.PathLike[str],
    manifest: AnyManifest,
    features: bytes,
    statistics: Mapping[str, NDArray[Any]],
    golden: Sequence[Golden],
    variants: Mapping[Precision, Payload] = MappingProxyType({}),
) -> Bundle:
    """Writes a bundle beside its name, reads it back with every check, and renames it.

    Equal content gives equal bytes.

    Args:
        path: Folder to make; it must not exist, its parent must.
        manifest: Everything but `files`, which is filled in here.
        features: The feature graph, one self-contained ONNX file.
        statistics: Tensors by name (FORMAT.md, "Statistics").
        golden: At least one frame with its score and map.
        variants: Further precisions, those of `manifest.variants`.

    Returns:
        The bundle, opened.

    Raises:
        InputError: The path exists, its parent does not or cannot be written to, or there is no golden frame.
        ResourceError: The disk is full; nothing is left behind.
        BundleError: The parts contradict each other; nothing is left behind.
    """
    path = Path(path)
    require_free(path)
    if set(variants) != set(manifest.variants):
        raise BundleError(f"variants {', '.join(variants)} received; the manifest says {', '.join(manifest.variants)}")
    payloads = {manifest.network.precision: Payload(features, statistics, golden), **variants}
    if not all(payload.golden for payload in payloads.values()):
        raise InputError("a bundle needs at least one golden frame to prove itself by; received none")
    partial = files.partial_name(path)
    try:
        partial.mkdir()
        try:
            _write_files(partial, manifest, payloads)
            bundle = read(partial)
            for precision in manifest.variants:
                bundle.select(precision)
            _rename(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise files.write_error(error, path) from error
    return bundle.at(path)


def require_free(path: Path) -> None:
    """Refuses a path that no bundle can be written to, before the work that makes one.

    Raises:
        InputError: The path exists, or its parent is no folder that can be written to.
    """
    if os.path.lexists(path):
        raise InputError(f"{path} exists; choose another name for the bundle or remove it first")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} is not a folder that can be written to; expected one to put {path.name} into")


def _write_files(folder: Path, manifest: AnyManifest, payloads: Mapping[Precision, Payload]) -> None:
    entries: dict[str, FileEntry] = {}
    for precision, payload in payloads.items():
        names = manifest.file_names(precision)
        if names.features not in entries:
            entries[names.features] = _write_file(folder / names.features, _writer_of(payload.features))
        elif entries[names.features].sha256 != hashlib.sha256(payload.features).hexdigest():
            raise BundleError(f"{names.features} of {precision} is another graph than the one of that name")
        golden = contents.golden_tensors(payload.golden)
        for name, arrays in ((names.statistics, payload.statistics), (names.golden, golden)):
            entries[name] = _write_file(folder / name, _writer_of(arrays))
    data = encode(msgspec.structs.replace(manifest, files=entries))
    digest = hashlib.sha256(data).hexdigest()
    _write_file(folder / MANIFEST, _writer_of(data))
    _write_file(folder / MANIFEST_HASH, _writer_of(f"{digest}\n".encode("ascii")))
    files.sync_folder(folder)


def _writer_of(content: bytes | Mapping[str, NDArray[Any]]) -> Callable[["_HashingFile"], object]:
    if isinstance(content, bytes):
        return lambda file: file.write(content)
    return lambda file: tensors.write(file, content)


class _HashingFile:
    """Passes bytes on and keeps their hash and number."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        return len(data)

    def entry(self) -> FileEntry:
        return FileEntry(size=self._size, sha256=self._hash.hexdigest())


def _write_file(path: Path, fill: Callable[[_HashingFile], object]) -> FileEntry:
    with path.open("xb") as file:
        hashing = _HashingFile(file)
        fill(hashing)
        file.flush()
        os.fsync(file.fileno())
    return hashing.entry()


def _rename(partial: Path, path: Path) -> None:
    # mkdir refuses, in one step, a name that someone took meanwhile; rename then replaces the empty folder in one step.
    try:
        path.mkdir()
    except FileExistsError:
        require_free(path)
    try:
        partial.rename(path)
    except OSError:
        path.rmdir()
        raise
    files.sync_folder(path.parent)
