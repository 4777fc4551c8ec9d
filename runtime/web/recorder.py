"""Keeps raw blocks around defects, or all of them, so that a stream can be played again as it was.

The blocks are written by a thread of its own. The stream never waits for the disk: it copies each block into one of a
fixed number of buffers, and goes on without where none is free.
"""

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.runtime.cameras.recording import INDEX, PIXELS, Entry, Header
from flawline.runtime.cameras.source import BlockInfo, Loss, Source, Status, line_shape
from flawline.runtime.errors import InputError
from flawline.runtime.files import make_folder, write_error
from flawline.runtime.memory import require
from flawline.runtime.web.geometry import Geometry

DEFAULT_BLOCKS = 64
DEFAULT_MARGIN_LINES = 512


class Room(NamedTuple):
    """What a recorder needs so that a defect, played again, has the whole context of its scores; see `Recorder`."""

    margin_lines: int
    blocks: int


def room_for(geometry: Geometry, defect_lines: int, block_lines: int) -> Room:
    """Margin and buffers of the recorder of a web.

    Args:
        geometry: Of the strips.
        defect_lines: Of the longest defect.
        block_lines: Of the source's blocks.
    """
    margin = geometry.halo + DEFAULT_MARGIN_LINES
    # What was before a defect must still be there when the strips behind it are inspected.
    past = defect_lines + geometry.halo + geometry.strip_lines + 2 * margin
    return Room(margin, max(DEFAULT_BLOCKS, -(-past // block_lines)))


class Recorded(msgspec.Struct, frozen=True):
    """What became of the blocks that were to be kept.

    Attributes:
        written: Blocks on the disk.
        dropped: Blocks that came, or were asked for, when no buffer held them any more.
        failed: Blocks that the disk did not take.
    """

    written: int = 0
    dropped: int = 0
    failed: int = 0


@dataclass(eq=False, slots=True)
class _Piece:
    """A block or a loss: where it lies on the web, and the pixels if it has any that could be held."""

    number: int
    info: BlockInfo
    first_line: int
    buffer: npt.NDArray[np.uint8] | None

    @property
    def is_block(self) -> bool:
        return self.info.status is Status.OK

    def touches(self, first_line: int, last_line: int) -> bool:
        return self.first_line <= last_line and self.first_line + self.info.lines > first_line


class Recorder:
    """Records a stream, in the order in which its consumer sees it. One thread calls it.

    Buffers hold the blocks of the recent past, and those that wait for the disk. A block stays until its buffer is needed for another, one
    that is to be kept until it is written. Losses are recorded as the blocks are, so that played back they are gaps again.

    Args:
        folder: Where to write; made if it is not there. It must hold no recording yet.
        source: The open source of the lines.
        everything: Keep all blocks, and not only those that `keep` asks for.
        margin_lines: Web lines before and behind a defect that are kept as well.
        blocks: Buffers. Those of the recent past must hold what was before a defect when it is found: the margin, the
            length of the defect, and the lines that the detector needs behind it.

    Attributes:
        error: What the disk said last when it failed; empty if it did not.

    Raises:
        InputError: The folder holds a recording already, or cannot be written to.
        ResourceError: The disk is full, or the buffers would not fit into memory.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        *,
        everything: bool = False,
        margin_lines: int = DEFAULT_MARGIN_LINES,
        blocks: int = DEFAULT_BLOCKS,
    ) -> None:
        if blocks < 1 or margin_lines < 0:
            raise InputError(
                f"a recorder of {blocks} blocks with a margin of {margin_lines} lines; expected 1 and 0 or more"
            )
        shape = (source.block_lines, *line_shape(source))
        require(blocks * int(np.prod(shape)), f"a recorder of {blocks} blocks", "ask for fewer")
        self._everything = everything
        self._margin_lines = margin_lines
        # Written once, so that the pages are there before the first line comes.
        self._free = [np.full(shape, 0, np.uint8) for _ in range(blocks)]
        self._most_pieces = 4 * blocks  # losses have no buffer that would bound their number
        self._past: deque[_Piece] = deque()
        self._held: deque[_Piece] = deque()  # those of the past that have a buffer
        self._waiting: deque[_Piece] = deque()
        self._number = 0
        self._wanted_until = -1
        self._closed = False
        self._changed = threading.Condition()
        self._written = self._dropped = self._failed = 0
        self.error = ""
        self._files = _Files(folder)
        try:
            self._files.append(
                Header(
                    1, source.spec, source.width, 1 if source.channels == 1 else 3, source.block_lines, source.line_rate
                )
            )
        except OSError as error:
            self._files.close()
            raise write_error(error, folder / INDEX) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._writing = self._thread.submit(self._write_all)

    def add(self, pixels: npt.NDArray[np.uint8], info: BlockInfo, web_line: int | None = None) -> int:
        """Takes a block as it came from the camera, before anything is done to its pixels.

        Args:
            pixels: uint8 (lines, width[, channels]); copied.
            info: Its numbers.
            web_line: Where it lies on the web, for `keep`; the number of its first line if None.

        Returns:
            Its number, for `keep_since`.
        """
        buffer = self._buffer()
        if buffer is not None:
            buffer[: info.lines] = pixels
        return self._take(info, web_line, buffer)

    def lose(self, loss: Loss, web_line: int | None = None) -> None:
        """Takes lines that the stream lost.

        Args:
            loss: What is known of them.
            web_line: Where they would have been on the web; the number of the first if None.
        """
        line, detail = loss.first_line, loss.detail
        for reason, lines in loss.reasons.items():
            self._take(BlockInfo(Status.LOST, line, lines, reason=reason, detail=detail), web_line, None)
            line, detail = line + lines, ""
            web_line = None if web_line is None else web_line + lines

    def keep(self, first_line: int, last_line: int) -> None:
        """Has everything written that lies within the margin around a defect, what is still to come included.

        Args:
            first_line: Web line where it begins.
            last_line: Web line where it ends.
        """
        begin, end = first_line - self._margin_lines, last_line + self._margin_lines
        with self._changed:
            self._wanted_until = max(self._wanted_until, end)
            self._want_past(lambda piece: piece.touches(begin, end))

    def keep_since(self, number: int) -> None:
        """Has everything written that has come since a block, that block included.

        Args:
            number: What `add` gave for it.
        """
        with self._changed:
            self._want_past(lambda piece: piece.number >= number)

    def close(self) -> Recorded:
        """Waits until what is to be kept is written, and says what became of all; closing again says it again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.shutdown()
        self._writing.result()
        self._free.clear()
        self._past.clear()
        self._held.clear()
        return self.recorded

    @property
    def recorded(self) -> Recorded:
        """What became of the blocks so far."""
        with self._changed:
            return Recorded(self._written, self._dropped, self._failed)

    def _buffer(self) -> npt.NDArray[np.uint8] | None:
        """A free buffer, or that of the oldest block that nobody asked for; None if all wait for the disk."""
        with self._changed:
            if self._free:
                return self._free.pop()
            if self._held:
                piece = self._held.popleft()
                buffer, piece.buffer = piece.buffer, None
                return buffer
        return None

    def _take(self, info: BlockInfo, web_line: int | None, buffer: npt.NDArray[np.uint8] | None) -> int:
        with self._changed:
            piece = _Piece(self._number, info, info.first_line if web_line is None else web_line, buffer)
            self._number += 1
            if self._everything or piece.first_line <= self._wanted_until:
                self._want(piece)
                self._changed.notify_all()
                return piece.number
            self._past.append(piece)
            if buffer is not None:
                self._held.append(piece)
            if len(self._past) > self._most_pieces and (oldest := self._past.popleft()).buffer is not None:
                self._free.append(oldest.buffer)
                self._held.popleft()
            return piece.number

    def _want_past(self, is_wanted: Callable[[_Piece], bool]) -> None:
        rest: deque[_Piece] = deque()
        for piece in self._past:
            if is_wanted(piece):
                self._want(piece)
            else:
                rest.append(piece)
        self._past = rest
        self._held = deque(piece for piece in rest if piece.buffer is not None)
        self._changed.notify_all()

    def _want(self, piece: _Piece) -> None:
        if (piece.is_block and piece.buffer is None) or len(self._waiting) >= self._most_pieces:
            self._dropped += piece.is_block
            if piece.buffer is not None:
                self._free.append(piece.buffer)
            return
        self._waiting.append(piece)

    def _write_all(self) -> None:
        """The thread: writes what waits, until there will be no more."""
        try:
            while (piece := self._next_piece()) is not None:
                failure = ""
                try:
                    self._files.write(piece.number, piece.info, piece.buffer)
                except OSError as error:
                    failure = f"{self._files.folder} does not take a block: {error.strerror or error}"
                with self._changed:
                    self.error = failure or self.error
                    self._failed += piece.is_block and bool(failure)
                    self._written += piece.is_block and not failure
                    if piece.buffer is not None:
                        self._free.append(piece.buffer)
        finally:
            try:
                self._files.close()
            except OSError as error:
                self.error = f"{self._files.folder} may not be durable: {error.strerror or error}"

    def _next_piece(self) -> _Piece | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None


class _Files:
    """The two files of a recording. What a full disk cut off is overwritten by the next that fits."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.folder = folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._index = os.open(folder / INDEX, flags, 0o644)
        except FileExistsError as error:
            raise InputError(f"{folder} holds a recording already; choose another folder") from error
        except OSError as error:
            raise write_error(error, folder / INDEX) from error
        try:
            self._pixels = os.open(folder / PIXELS, flags, 0o644)
        except OSError as error:
            os.close(self._index)
            (folder / INDEX).unlink()
            raise write_error(error, folder / PIXELS) from error
        self._index_end = self._pixels_end = 0

    def write(self, number: int, info: BlockInfo, buffer: npt.NDArray[np.uint8] | None) -> None:
        """Appends pixels, and then the entry that makes them known."""
        offset = crc32 = None
        end = self._pixels_end
        if buffer is not None:
            pixels = buffer[: info.lines].data.cast("B")
            _write_at(self._pixels, pixels, end)
            offset, crc32 = end, zlib.crc32(pixels)
            end += len(pixels)
        self.append(Entry.of(number, info, offset, crc32))
        self._pixels_end = end

    def append(self, line: Header | Entry) -> None:
        """Appends to the index."""
        data = msgspec.json.encode(line) + b"\n"
        _write_at(self._index, memoryview(data), self._index_end)
        self._index_end += len(data)

    def close(self) -> None:
        """Cuts off what was not written whole, and makes the rest durable."""
        try:
            for descriptor, end in ((self._pixels, self._pixels_end), (self._index, self._index_end)):
                os.ftruncate(descriptor, end)
                os.fsync(descriptor)
        finally:
            os.close(self._pixels)
            os.close(self._index)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
