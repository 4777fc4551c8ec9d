"""Tensor files: safetensors, read as views of a mapping, written with data aligned to 64 bytes.

A file is 8 bytes of header length (little-endian), a JSON header padded with spaces, and the tensors' bytes without a
gap. FORMAT.md says what a bundle demands beyond that.
"""

import math
import mmap
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from flawline.runtime.bundle import strict_json
from flawline.runtime.errors import BundleError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import safetensors
else:
    safetensors = LazyModule("safetensors", "pip install safetensors")

Array = NDArray[Any]

ALIGNMENT_BYTES = 64
HEADER_CAP_BYTES = 1 << 20
MAX_AXES = 8

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_LENGTH_BYTES = 8
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_KEYS = {"dtype", "shape", "data_offsets"}


class Sink(Protocol):
    """Takes bytes one after the other, as a file open for writing does."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Takes the next bytes."""


class Entry(NamedTuple):
    """One tensor of a header; `begin` and `end` count bytes from the first byte of the data."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def load(data: mmap.mmap | bytes, where: str) -> dict[str, Array]:
    """Tensors of a file as read-only views: nothing is copied.

    Args:
        data: The whole file.
        where: Its name for error messages.

    Returns:
        Arrays by name, in the order of the file.

    Raises:
        BundleError: The header is malformed or does not describe exactly the bytes that follow.
    """
    start, entries = parse_header(data, where)
    views: dict[str, Array] = {}
    for entry in entries:
        flat = np.frombuffer(data, entry.dtype, count=math.prod(entry.shape), offset=start + entry.begin)
        views[entry.name] = flat.reshape(entry.shape)
    return views


def confirm(path: Path) -> None:
    """Lets the safetensors library judge a file as well; what it says adds to our own checks and replaces none.

    Args:
        path: A tensor file.

    Raises:
        BundleError: The library refuses it.
    """
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        raise BundleError(f"{path}: the safetensors library refuses it ({error})") from error


def parse_header(data: mmap.mmap | bytes, where: str) -> tuple[int, list[Entry]]:
    """Reads and checks the header, every length against the bytes that are there.

    Args:
        data: The whole file.
        where: Its name for error messages.

    Returns:
        Offset of the data in bytes, and the tensors in the order of their bytes.

    Raises:
        BundleError: See FORMAT.md, "Tensor files": one message for each rule.
    """
    size = len(data)
    if size < _LENGTH_BYTES:
        raise BundleError(f"{where} holds {size} bytes; expected at least the {_LENGTH_BYTES} of a header's length")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > HEADER_CAP_BYTES:
        raise BundleError(f"{where} announces a header of {length} bytes; expected at most {HEADER_CAP_BYTES}")
    start = _LENGTH_BYTES + length
    if start > size:
        raise BundleError(
            f"{where} announces a header of {length} bytes, and only {size - _LENGTH_BYTES} follow; it is truncated"
        )
    header = data[_LENGTH_BYTES:start]
    if not header.startswith(b"{"):
        raise BundleError(f"{where}: the header begins with {header[:1]!r}; expected {{ at once")
    fields = strict_json.parse(header, f"{where}: the header")
    if start % ALIGNMENT_BYTES:
        raise BundleError(f"{where}: the data begin at byte {start}; expected a multiple of {ALIGNMENT_BYTES}")
    _check_metadata(fields.pop("__metadata__", {}), where)
    if not fields:
        raise BundleError(f"{where} holds no tensor; expected at least one")
    entries = sorted((_entry(name, value, where) for name, value in fields.items()), key=lambda entry: entry.begin)
    _check_layout(entries, size - start, where)
    return start, entries


def _check_metadata(value: Any, where: str) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BundleError(f"{where}: __metadata__ must be an object of strings")


def _entry(name: str, value: Any, where: str) -> Entry:
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"{where}: tensor name {name[:80]!a}; expected lower-case letters, digits, dots and underscores"
        )
    tensor = f"{where}: tensor {name}"
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise BundleError(f"{tensor} is not described by exactly dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise BundleError(f"{tensor} has dtype {str(code)[:80]!a}; expected one of {', '.join(DTYPES)}")
    if not _are_integers(shape) or not 1 <= len(shape) <= MAX_AXES:
        raise BundleError(f"{tensor}: the shape is not a list of 1 to {MAX_AXES} integers")
    if min(shape) < 1:
        raise BundleError(f"{tensor} has a side of {min(shape)}; expected at least 1")
    if not _are_integers(offsets) or len(offsets) != 2:
        raise BundleError(f"{tensor}: data_offsets are not two integers")
    begin, end = offsets
    if begin < 0:
        raise BundleError(f"{tensor} begins at byte {begin}; expected 0 or more")
    if end < begin:
        raise BundleError(f"{tensor}: data_offsets [{begin}, {end}] are reversed")
    dtype = DTYPES[code]
    expected = math.prod(shape) * dtype.itemsize
    if end - begin != expected:
        raise BundleError(f"{tensor} spans {end - begin} bytes; its shape and dtype need {_short(expected)}")
    if begin % dtype.itemsize:
        raise BundleError(f"{tensor} begins at byte {begin}; expected a multiple of its item size, {dtype.itemsize}")
    return Entry(name, dtype, tuple(shape), begin, end)


def _check_layout(entries: Iterable[Entry], data_bytes: int, where: str) -> None:
    reached = 0
    for entry in entries:
        if entry.begin < reached:
            raise BundleError(
                f"{where}: tensor {entry.name} begins at byte {entry.begin}, another ends at {reached}: they overlap"
            )
        if entry.begin > reached:
            raise BundleError(
                f"{where}: a hole of {entry.begin - reached} bytes before tensor {entry.name}; expected none"
            )
        reached = entry.end
    if reached > data_bytes:
        raise BundleError(
            f"{where}: the tensors need {reached} bytes of data, and {data_bytes} are there; it is truncated"
        )
    if reached < data_bytes:
        raise BundleError(f"{where}: {data_bytes - reached} bytes follow the last tensor; expected none")


def _are_integers(value: Any) -> bool:
    # bool is an int to Python, and a shape of [true] would pass for [1].
    return isinstance(value, list) and all(type(item) is int for item in value)


def _short(number: int) -> str:
    return str(number) if number < 1 << 63 else "more than 2^63"


def write(file: Sink, tensors: Mapping[str, Array]) -> None:
    """Writes a tensor file: equal tensors give equal bytes, in whatever order they come.

    "factors", the largest and the one that is streamed through, comes first and so begins at a multiple of 64 bytes;
    the others follow by falling item size and name, which aligns each to its item.

    Args:
        file: Where the bytes go.
        tensors: Arrays of the dtypes in `DTYPES`, C-contiguous or not, none empty.

    Raises:
        BundleError: A name or an array that the format does not allow.
    """
    ordered = sorted(tensors.items(), key=lambda item: (item[0] != "factors", -item[1].dtype.itemsize, item[0]))
    fields: dict[str, Any] = {}
    position = 0
    for name, array in ordered:
        if array.dtype not in _CODES:
            raise BundleError(f"tensor {name} has dtype {array.dtype}; expected one of {', '.join(DTYPES)}")
        end = position + array.nbytes
        fields[name] = {"dtype": _CODES[array.dtype], "shape": list(array.shape), "data_offsets": [position, end]}
        # The rules of the reader, asked before a byte is written.
        _entry(name, fields[name], "tensor file")
        position = end
    header = msgspec.json.encode(fields)
    header += b" " * (-(_LENGTH_BYTES + len(header)) % ALIGNMENT_BYTES)
    file.write(len(header).to_bytes(_LENGTH_BYTES, "little"))
    file.write(header)
    for _, array in ordered:
        file.write(np.ascontiguousarray(array).data.cast("B"))
