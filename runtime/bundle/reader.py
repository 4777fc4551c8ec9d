"""Opens a bundle: every byte is verified before it is used, and the very bytes that were verified are used."""

import errno
import hashlib
import mmap
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flawline.runtime.bundle import contents, tensors
from flawline.runtime.bundle.contents import Golden
from flawline.runtime.bundle.manifest import (
    AnyManifest,
    FileEntry,
    Manifest,
    ManifestOfKinds,
    MapKind,
    PadimManifest,
    decode,
)
from flawline.runtime.errors import BundleError, InputError, NotABundleError
from flawline.runtime.precisions import Precision

MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest.sha256"
MANIFEST_CAP_BYTES = 1 << 20

_MANIFEST_HASH_BYTES = 65
_AGAIN = "copy the bundle again"


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle, in one of the precisions that it holds.

    Attributes:
        path: Its folder.
        hash: SHA-256 of the manifest, which holds the hashes of all other files: it names the bundle's whole content.
        manifest: What the bundle says of the detector in this precision.
        statistics: Tensors by name, read-only views of the mapped file (FORMAT.md, "Statistics").
        golden: Frames whose scores are known.
        total_bytes: Size of all its files together.
    """

    path: Path
    hash: str
    manifest: AnyManifest
    statistics: Mapping[str, NDArray[Any]]
    golden: list[Golden]
    total_bytes: int
    _whole: "_Whole" = field(repr=False)

    @property
    def features(self) -> bytes:
        """The feature graph, an ONNX file: a fresh copy at each access of the bytes that were verified."""
        whole, precision = self._whole, self.manifest.network.precision
        mapping = whole.files[whole.manifest.file_names(precision).features]
        copy = mapping[:]
        _forget_pages(mapping)
        return copy

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that the bundle holds, its own first."""
        return self._whole.manifest.precisions

    @property
    def padim(self) -> PadimManifest:
        """The manifest of a PaDiM detector.

        Raises:
            InputError: The bundle is of another detector.
        """
        if not isinstance(self.manifest, PadimManifest):
            raise InputError(
                f"{self.path} is a bundle of a {self.manifest.detector} detector; this needs one of PaDiM, as "
                "`flawline fit` makes without --detector"
            )
        return self.manifest

    @property
    def calibration_scores(self) -> NDArray[np.float32]:
        """float32 (n,), ascending: the scores of the calibration images, by the map in use."""
        return self.statistics[self.manifest.score_tensor]

    def p_value(self, score: float) -> float:
        """Conformal p-value of a score: (1 + number of calibration scores >= score) / (n + 1)."""
        scores = self.calibration_scores
        at_least = len(scores) - int(np.searchsorted(scores, np.float32(score), side="left"))
        return (1 + at_least) / (len(scores) + 1)

    def select(self, precision: Precision | None) -> "Bundle":
        """The same bundle in another precision; in its own for None.

        Raises:
            InputError: It holds no such precision.
            BundleError: Tensors of that precision contradict the manifest.
        """
        selected = _view(self._whole, precision or self._whole.manifest.network.precision)
        if isinstance(self.manifest, ManifestOfKinds):
            return selected.with_map(self.manifest.kind)
        return selected

    def with_map(self, kind: MapKind | None) -> "Bundle":
        """The same bundle with another of its kinds of anomaly map, which has a threshold and calibration scores of its own.

        The golden scores and maps stay those of the map that the bundle was written with.

        Args:
            kind: One that the bundle of a reconstruction detector or a classifier offers; None for the one it was written
                with.

        Raises:
            InputError: It does not offer that kind.
        """
        written = self._whole.manifest.select(self.manifest.network.precision)
        if isinstance(written, ManifestOfKinds):
            return replace(self, manifest=written.with_map(kind or written.kind))
        if kind is not None:
            raise InputError(f"{self.path} is a bundle of PaDiM, which has one kind of anomaly map; received '{kind}'")
        return self

    def at(self, path: Path) -> "Bundle":
        """The same bundle after its folder was renamed."""
        return replace(self, path=path, _whole=replace(self._whole, path=path))


@dataclass(frozen=True, eq=False)
class _Whole:
    """All files of a bundle, mapped and verified."""

    path: Path
    hash: str
    manifest: AnyManifest
    files: Mapping[str, mmap.mmap]
    total_bytes: int

    def tensors(self, name: str) -> Mapping[str, NDArray[Any]]:
        return tensors.load(self.files[name], str(self.path / name))


def read(path: str | os.PathLike[str]) -> Bundle:
    """Opens and verifies a bundle.

    One pass hashes every file; tensors stay in the file and are mapped. What is never used of it, such as other precisions,
    takes none of this process's memory.

    Args:
        path: The bundle's folder.

    Returns:
        The bundle. Its arrays stay valid as long as someone holds them, also if the folder is moved or removed.

    Raises:
        NotABundleError: It is no bundle, or may not be read.
        NewerFormatError: It is of a newer format.
        BundleError: It is damaged or contradicts itself.
    """
    path = Path(path)
    with _opened(path) as folder:
        if not folder.names() & {MANIFEST, MANIFEST_HASH}:
            raise NotABundleError(
                f"{path} holds neither {MANIFEST} nor {MANIFEST_HASH}; expected the folder of a bundle"
            )
        declared = _declared_hash(folder)
        data = folder.small(MANIFEST, MANIFEST_CAP_BYTES)
        actual = hashlib.sha256(data).hexdigest()
        if actual != declared:
            raise BundleError(
                f"{folder.where(MANIFEST)} has the SHA-256 {actual}; {MANIFEST_HASH} says {declared}: {_AGAIN}"
            )
        manifest = decode(data, folder.where(MANIFEST))
        _check_names(folder, manifest)
        mappings = {name: folder.verified(name, entry) for name, entry in manifest.files.items()}
    for precision in manifest.precisions:
        for name in manifest.file_names(precision)[1:]:
            tensors.parse_header(mappings[name], folder.where(name))
            tensors.confirm(path / name)
    total = sum(entry.size for entry in manifest.files.values()) + len(data) + _MANIFEST_HASH_BYTES
    return _view(_Whole(path, actual, manifest, mappings, total), manifest.network.precision)


def _view(whole: _Whole, precision: Precision) -> Bundle:
    manifest = whole.manifest.select(precision)
    names = whole.manifest.file_names(precision)
    statistics, golden = whole.tensors(names.statistics), whole.tensors(names.golden)
    contents.check_statistics(manifest, statistics, str(whole.path / names.statistics))
    examples = contents.check_golden(manifest, golden, str(whole.path / names.golden))
    return Bundle(whole.path, whole.hash, manifest, statistics, examples, whole.total_bytes, whole)


class _Folder:
    """An open folder. Files are looked up from its descriptor, so that no rename can swap it between two of them."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def where(self, name: str) -> str:
        return str(self._path / name)

    def names(self) -> set[str]:
        with os.scandir(self._descriptor) as entries:
            return {entry.name for entry in entries}

    def small(self, name: str, cap_bytes: int) -> bytes:
        with self._regular(name) as (descriptor, size):
            if size > cap_bytes:
                raise BundleError(f"{self.where(name)} holds {size} bytes; expected at most {cap_bytes}")
            # A file that grows while it is read is still read to its first length only.
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(size)

    def verified(self, name: str, entry: FileEntry) -> mmap.mmap:
        with self._regular(name) as (descriptor, size):
            if size != entry.size:
                raise BundleError(f"{self.where(name)} holds {size} bytes; the manifest says {entry.size}: {_AGAIN}")
            try:
                mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise BundleError(f"{self.where(name)} cannot be mapped ({error})") from error
        actual = hashlib.sha256(mapping).hexdigest()
        if actual != entry.sha256:
            raise BundleError(
                f"{self.where(name)} has the SHA-256 {actual}; the manifest says {entry.sha256}: {_AGAIN}"
            )
        _forget_pages(mapping)
        return mapping

    @contextmanager
    def _regular(self, name: str) -> Iterator[tuple[int, int]]:
        # O_NONBLOCK: opening a pipe that someone left there must not wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError as error:
            raise BundleError(f"{self.where(name)} is missing; a bundle must hold it: {_AGAIN}") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise BundleError(f"{self.where(name)} is a symbolic link; expected a regular file") from error
            raise NotABundleError(f"{self.where(name)} cannot be read: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{self.where(name)} is not a regular file")
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)


def _forget_pages(mapping: mmap.mmap) -> None:
    """Takes the pages of a file out of this process's memory until they are read again, from the page cache as a rule."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on every system
        with suppress(OSError):  # of a program that locked its memory: the pages stay
            mapping.madvise(mmap.MADV_DONTNEED)


@contextmanager
def _opened(path: Path) -> Iterator[_Folder]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotABundleError(f"{path} does not exist; expected the folder of a bundle") from error
    except NotADirectoryError as error:
        raise NotABundleError(f"{path} is a file; expected the folder of a bundle") from error
    except OSError as error:
        raise NotABundleError(f"{path} cannot be read: {error.strerror}") from error
    try:
        yield _Folder(path, descriptor)
    finally:
        os.close(descriptor)


def _declared_hash(folder: _Folder) -> str:
    data = folder.small(MANIFEST_HASH, 1024)
    if not re.fullmatch(rb"[0-9a-f]{64}\n", data):
        raise BundleError(
            f"{folder.where(MANIFEST_HASH)} is not 64 lower-case hexadecimal digits and a newline; damaged: {_AGAIN}"
        )
    return data[:64].decode("ascii")


def _check_names(folder: _Folder, manifest: Manifest) -> None:
    for precision in manifest.precisions:
        for name in manifest.file_names(precision):
            if name not in manifest.files:
                raise BundleError(f"{folder.where(MANIFEST)} does not list {name}, which a bundle in {precision} holds")
    for name in (MANIFEST, MANIFEST_HASH):
        if name in manifest.files:
            raise BundleError(f"{folder.where(MANIFEST)} lists {name}, which cannot hold its own hash")
    unlisted = sorted(folder.names() - manifest.files.keys() - {MANIFEST, MANIFEST_HASH})
    if unlisted:
        raise BundleError(
            f"{folder.where(unlisted[0])!a} is not listed in the manifest; remove it, or copy the bundle again"
        )
