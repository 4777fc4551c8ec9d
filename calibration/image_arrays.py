"""Arrays of images and of their labels in files: `.npz` archives, and the IDX files that MNIST is published in."""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime import memory
from flawline.runtime.errors import FlawlineError, InputError

Part = Literal["train", "test"]

_NPZ_NAMES = {"train": (("x_train", "y_train"), ("images", "labels")), "test": (("x_test", "y_test"),)}
_IDX_PREFIX = {"train": "train", "test": "t10k"}
_IDX_ENDINGS = ("-idx{axes}-ubyte", ".idx{axes}-ubyte", "-idx{axes}-ubyte.gz", ".idx{axes}-ubyte.gz")
_UNSIGNED_BYTES = 8


class ImageArrays(NamedTuple):
    """Images in memory.

    Attributes:
        path: The file.
        images: uint8 (N, h, w) grey or (N, h, w, 3) RGB.
        labels: Whole numbers (N,), if they were asked for.
    """

    path: Path
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer[Any]] | None


def read_npz(path: Path, part: Part, *, labelled: bool) -> ImageArrays:
    """Reads images and labels of an archive.

    Args:
        path: An `.npz` file with x_train and y_train, or images and labels; to test on, with x_test and y_test.
        part: Which.
        labelled: Whether labels are read.

    Raises:
        InputError: It is damaged, holds objects, or arrays of other names, shapes or types.
        ResourceError: The arrays would not fit into memory.
    """
    pairs = _NPZ_NAMES[part]
    try:
        with zipfile.ZipFile(path) as archive:
            there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = next((pair for pair in pairs if all(name in there for name in pair[: 1 + labelled])), None)
            if names is None:
                wanted = " or ".join(" and ".join(pair[: 1 + labelled]) for pair in pairs)
                raise InputError(f"{path} holds {', '.join(sorted(there)[:5]) or 'nothing'}; expected {wanted}")
            images = _npy(archive, there[names[0]], path)
            labels = _npy(archive, there[names[1]], path) if labelled else None
    except FlawlineError:
        raise
    except Exception as error:  # a damaged archive raises almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is no archive of arrays, or damaged: {reason!a}") from error
    return _checked(path, images, labels)


def _npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        needed_bytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise InputError(f"{path}: {member.filename!a} holds Python objects, which are not read; expected numbers")
        # Before anything is allocated by what the header says.
        if needed_bytes != member.file_size - file.tell():
            raise InputError(f"{path}: {member.filename!a} announces {dtype} {shape}, which is not what it holds")
    memory.require(needed_bytes, f"{path}: {member.filename!a}", "take fewer images")
    with archive.open(member) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def find_idx(path: Path, part: Part, axes: int, kind: Literal["images", "labels"]) -> Path | None:
    """The IDX file of a part in a folder, under one of the names in which it is published, if it is there."""
    names = (f"{_IDX_PREFIX[part]}-{kind}{ending.format(axes=axes)}" for ending in _IDX_ENDINGS)
    return next((path / name for name in names if (path / name).is_file()), None)


def read_idx(folder: Path, part: Part, *, labelled: bool) -> ImageArrays:
    """Reads images and labels of IDX files: a header of big-endian numbers, then bytes.

    Args:
        folder: With the files, under the names in which MNIST and Fashion-MNIST are published, compressed or not.
        part: Which.
        labelled: Whether labels are read.

    Raises:
        InputError: A file is missing, damaged, or of another shape or type.
        ResourceError: The arrays would not fit into memory.
    """
    files = []
    for kind, axes in (("images", 3), ("labels", 1))[: 1 + labelled]:
        found = find_idx(folder, part, axes, kind)  # type: ignore[arg-type]
        if found is None:
            raise InputError(f"{folder} holds no {_IDX_PREFIX[part]}-{kind}-idx{axes}-ubyte, nor that with .gz")
        files.append(_idx(found, axes))
    return _checked(folder, files[0], files[1] if labelled else None)


def _idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return _idx_content(file, path, axes)
        with path.open("rb") as file:
            return _idx_content(file, path, axes)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read, or is damaged: {error}") from error


def _idx_content(file: BinaryIO | gzip.GzipFile, path: Path, axes: int) -> npt.NDArray[np.uint8]:
    header = file.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes or header[:4] != bytes((0, 0, _UNSIGNED_BYTES, axes)):
        raise InputError(
            f"{path} begins with {header[:4].hex()}; expected 000008{axes:02x}, an IDX file of {axes} axes"
        )
    shape = struct.unpack(f">{axes}I", header[4:])
    needed_bytes = math.prod(shape)
    memory.require(needed_bytes, f"{path}, which announces {shape}", "take another file")
    content = file.read(needed_bytes + 1)
    if len(content) != needed_bytes:
        received = "more" if len(content) > needed_bytes else f"{len(content)}"
        raise InputError(f"{path} announces {shape}, {needed_bytes} bytes, and holds {received}; get it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _checked(path: Path, images: npt.NDArray[Any], labels: npt.NDArray[Any] | None) -> ImageArrays:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)) or not images.size:
        raise InputError(f"{path}: images {images.dtype} {images.shape}; expected uint8 (N, h, w) or (N, h, w, 3)")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]):
        raise InputError(
            f"{path}: labels {labels.dtype} {labels.shape}; expected whole numbers ({len(images)},), one per image"
        )
    return ImageArrays(path, images, labels)
