"""Plays a recording back: the very blocks that a stream had, with their gaps, the camera's times and the encoder's counts.

A recording is a folder of two files, which `flawline.runtime.web.recorder` writes. `lines.raw` holds the pixels of blocks, one
after the other. `recording.jsonl` begins with a `Header`; every further line is an `Entry`: a block or a loss. Blocks may
have been written in another order than they came: their numbers tell. What has no line feed at its end was cut off by a
crash or a full disk, and is ignored.
"""

import os
import time
import zlib
from array import array
from io import BufferedReader
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.runtime.cameras.pacing import Pacing
from flawline.runtime.cameras.replay import ReplayOptions, ReplaySource
from flawline.runtime.cameras.source import BlockInfo, Source, Status
from flawline.runtime.errors import InputError

INDEX = "recording.jsonl"
PIXELS = "lines.raw"

_LONGEST_BYTES = 1 << 16  # of a line of the index
_MOST = (1 << 62) - 1
_SHOWN = 200


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of the index.

    Attributes:
        recording: Version of the format, 1.
        spec: What was recorded.
        width: Pixels of a line.
        channels: 1 for grey, 3 for RGB.
        block_lines: Most lines of a block.
        line_rate: Lines per second that were asked for, if any.
    """

    recording: Literal[1]
    spec: str
    width: int
    channels: Literal[1, 3]
    block_lines: int
    line_rate: float | None = None

    def __post_init__(self) -> None:
        """Refuses sizes that no camera has."""
        if not 1 <= self.width <= 1 << 20 or not 1 <= self.block_lines <= 1 << 16:
            raise ValueError(f"lines of {self.width} px in blocks of {self.block_lines}")

    @property
    def line_bytes(self) -> int:
        """Bytes of a line."""
        return self.width * self.channels


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block or a loss; for what is not explained here see `BlockInfo`.

    Attributes:
        number: Counts blocks and losses in the order in which they came.
        arrival_time_ns: On the clock of the machine that recorded it.
        offset: Where the pixels begin in `lines.raw`, bytes; None for a loss.
        crc32: CRC-32 of the pixels; None for a loss.
    """

    number: int
    status: Literal["ok", "lost"]
    first_line: int
    lines: int
    camera_time_ns: int = 0
    arrival_time_ns: int = 0
    reason: str = ""
    detail: str = ""
    encoder: int | None = None
    encoder_end: int | None = None
    offset: int | None = None
    crc32: int | None = None

    def __post_init__(self) -> None:
        """Refuses numbers that contradict each other."""
        for name in ("number", "first_line", "lines", "offset", "crc32"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _MOST:
                raise ValueError(f"{name} {value}")
        if not self.lines:
            raise ValueError("no lines")
        is_block = self.status == "ok"
        if (self.offset is not None, self.crc32 is not None) != (is_block, is_block):
            raise ValueError("a block without pixels, or a loss with them")
        if (self.encoder is None) != (self.encoder_end is None):
            raise ValueError("one encoder count of two")

    @classmethod
    def of(cls, number: int, info: BlockInfo, offset: int | None, crc32: int | None) -> "Entry":
        """What there is to write of a block or a loss."""
        status: Literal["ok", "lost"] = "ok" if info.status is Status.OK else "lost"
        return cls(number, status, *info[1:], offset, crc32)

    def info(self, arrival_time_ns: int) -> BlockInfo:
        """The block as it is played now."""
        fields = {name: getattr(self, name) for name in BlockInfo._fields}
        return BlockInfo(**fields | {"status": Status(self.status), "arrival_time_ns": arrival_time_ns})


def open_replay(address: str, options: ReplayOptions, spec: str) -> Source:
    """What `replay:` means: a recording if the folder holds one, images otherwise."""
    folder = Path(address)
    if not (folder / INDEX).is_file():
        return ReplaySource(folder, options, spec)
    given = ReplayOptions()
    for name in ("block", "loop"):
        if getattr(options, name) != getattr(given, name):
            raise InputError(
                f"source {spec!r} gives {name} for a recording; expected line_rate alone: its very blocks are played, once"
            )
    return RecordingSource(folder, options.line_rate or None, spec)


class RecordingSource:
    """The blocks of a recording.

    Line numbers, camera times and counts are those that were recorded; arrival times are those of now. Lines that nobody
    recorded are LOST under the reason `not_recorded`, and blocks whose pixels are not those that were written under
    `damaged_recording`.

    Args:
        folder: Of the recording.
        line_rate: Lines per second; None for as fast as it is read.
        spec: The words it was named by, for reports.
    """

    def __init__(self, folder: Path, line_rate: float | None = None, spec: str = "") -> None:
        self.spec = spec or f"replay:{folder}"
        self.width = 0
        self.channels = 0
        self.block_lines = 0
        self.line_rate = line_rate
        self.has_encoder = False
        self.counters = {"lines_sent": 0, "blocks_played": 0, "blocks_damaged": 0}
        self._folder = folder
        self._index: BufferedReader | None = None
        self._pixels: BufferedReader | None = None
        self._places = np.zeros(0, np.int64)  # where entries begin in the index, in the order in which they came
        self._next = 0
        self._next_line: int | None = None
        self._played_lines = 0
        self._pacing = Pacing(line_rate)

    def open(self) -> None:
        """See `Source`: checks every entry."""
        try:
            self._index = (self._folder / INDEX).open("rb")
            self._pixels = (self._folder / PIXELS).open("rb")
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read: {error.strerror}; expected a recording") from error
        header = _decode(self._index.readline(_LONGEST_BYTES), Header, f"{self._folder / INDEX}, line 1")
        self.width, self.channels, self.block_lines = header.width, header.channels, header.block_lines
        self._places = self._check_entries(header)

    def read(self, into: npt.NDArray[np.uint8], timeout_s: float) -> BlockInfo:
        """See `Source`."""
        if self._next == len(self._places):
            return BlockInfo(Status.END)
        entry = self._entry(self._next)
        if self._next_line is not None and entry.first_line > self._next_line:
            return self._sent(
                Entry(entry.number, "lost", self._next_line, entry.first_line - self._next_line, reason="not_recorded")
            )
        if entry.status == "ok":
            if not self._pacing.wait_for(self._played_lines + entry.lines, timeout_s):
                return BlockInfo(Status.TIMEOUT)
            self._played_lines += entry.lines
            entry = self._fetch(entry, into)
        self._next += 1
        return self._sent(entry)

    def close(self) -> None:
        """See `Source`."""
        for file in (self._index, self._pixels):
            if file is not None:
                file.close()
        self._places = self._places[:0]
        self._next = 0

    def _check_entries(self, header: Header) -> npt.NDArray[np.int64]:
        """Every entry by itself, and all in the order in which they came."""
        assert self._index is not None
        assert self._pixels is not None
        pixel_bytes = os.fstat(self._pixels.fileno()).st_size
        found = array("q")  # number, first line, line behind the last, place: four for each entry
        count = 1
        place = self._index.tell()
        where = str(self._folder / INDEX)
        while (line := self._index.readline(_LONGEST_BYTES)).endswith(b"\n"):
            count += 1
            entry = _decode(line, Entry, f"{where}, line {count}")
            if entry.offset is not None:
                end = entry.offset + entry.lines * header.line_bytes
                if entry.lines > header.block_lines or end > pixel_bytes:
                    raise InputError(
                        f"{where}, line {count}: {entry.lines} lines up to byte {end} of {pixel_bytes}, "
                        f"in blocks of {header.block_lines}; expected what {PIXELS} holds: it is truncated"
                    )
            self.has_encoder |= entry.encoder is not None
            found.extend((entry.number, entry.first_line, entry.first_line + entry.lines, place))
            place = self._index.tell()
        if len(line) == _LONGEST_BYTES:
            raise InputError(f"{where}, line {count + 1} is longer than {_LONGEST_BYTES} bytes")
        table = np.frombuffer(found, np.int64).reshape(-1, 4)
        table = table[np.argsort(table[:, 0])]
        wrong = np.flatnonzero((np.diff(table[:, 0]) <= 0) | (table[1:, 1] < table[:-1, 2]))
        if len(wrong):
            number, first_line = table[wrong[0] + 1, :2]
            raise InputError(
                f"{where}: block {number} begins at line {first_line}, which was there before; expected rising lines"
            )
        places: npt.NDArray[np.int64] = table[:, 3].copy()
        return places

    def _entry(self, number: int) -> Entry:
        assert self._index is not None
        self._index.seek(int(self._places[number]))
        return _decode(self._index.readline(_LONGEST_BYTES), Entry, f"{self._folder / INDEX}, which changed")

    def _fetch(self, entry: Entry, into: npt.NDArray[np.uint8]) -> Entry:
        """Reads the pixels; a loss in place of the entry if they are not those that were written."""
        assert self._pixels is not None
        assert entry.offset is not None
        self._pixels.seek(entry.offset)
        pixels = into[: entry.lines].data.cast("B")
        if self._pixels.readinto(pixels) == len(pixels) and zlib.crc32(pixels) == entry.crc32:
            self.counters["blocks_played"] += 1
            return entry
        self.counters["blocks_damaged"] += 1
        detail = f"{self._folder / PIXELS} holds other pixels at byte {entry.offset} than were written there"
        return Entry(entry.number, "lost", entry.first_line, entry.lines, reason="damaged_recording", detail=detail)

    def _sent(self, entry: Entry) -> BlockInfo:
        self._next_line = entry.first_line + entry.lines
        self.counters["lines_sent"] += entry.lines
        return entry.info(time.monotonic_ns())


_Kind = TypeVar("_Kind", Header, Entry)


def _decode(line: bytes, kind: type[_Kind], where: str) -> _Kind:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: {str(error)[:_SHOWN]}; expected a recording that `--record` wrote") from error
