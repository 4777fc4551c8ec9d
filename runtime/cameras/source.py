"""What a line camera, or whatever stands for one, offers: blocks of lines, or the reason why there are none."""

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import FlawlineError, InputError


class CameraLostError(FlawlineError):
    """A camera that was open is gone; it may come back when it is opened again."""


class Status(enum.Enum):
    """How a read ended."""

    OK = "ok"
    """All lines of the block are there."""
    TIMEOUT = "timeout"
    """Nothing came in time; no line is accounted for, and the next read goes on."""
    INCOMPLETE = "incomplete"
    """The lines were sent, but parts of them never came: their pixels are worthless."""
    LOST = "lost"
    """The lines were sent, and none of them will come."""
    END = "end"
    """The web is over."""


class BlockInfo(NamedTuple):
    """What a read gave.

    Attributes:
        status: How it ended. `lines` count for OK, INCOMPLETE and LOST.
        first_line: Number of the first line; lines are numbered along the whole web.
        lines: Number of lines; for LOST it may exceed a block.
        camera_time_ns: The source's own clock at the last of the lines, nanoseconds.
        arrival_time_ns: `time.monotonic_ns()` when the last of the lines was here, whenever it was read after that.
        reason: For LOST and INCOMPLETE, the name under which the lines are counted, such as `unreadable_image`.
        detail: For LOST and INCOMPLETE, one line for people: what was lost and why.
        encoder: Count of the encoder at the first line; None without an encoder. Within a block the count changes by
            the same amount from line to line: a source that sees it turn back ends the block there.
        encoder_end: Count of the encoder where the line after the last one would be; below `encoder` when the web runs
            backwards.
    """

    status: Status
    first_line: int = 0
    lines: int = 0
    camera_time_ns: int = 0
    arrival_time_ns: int = 0
    reason: str = ""
    detail: str = ""
    encoder: int | None = None
    encoder_end: int | None = None


@dataclass(slots=True)
class Loss:
    """Consecutive lines that nobody will see.

    Attributes:
        first_line: Number of the first lost line.
        reasons: Lost lines by reason.
        detail: The first explanation for people that came with it, if any.
    """

    first_line: int
    reasons: Counter[str]
    detail: str = ""

    @property
    def lines(self) -> int:
        """Number of lost lines."""
        return self.reasons.total()

    def merge(self, following: "Loss") -> None:
        """Extends this loss by the one right after it."""
        self.reasons.update(following.reasons)
        self.detail = self.detail or following.detail


class Source(Protocol):
    """A source of lines. Only one thread at a time uses it.

    One whose blocks have no encoder counts may say so once it is open, by an attribute `has_encoder` that is False: see
    `require_encoder`.

    Attributes:
        spec: The words it was named by, for reports.
        width: Pixels of a line, known once open.
        channels: 1 for grey, 3 for RGB, known once open.
        block_lines: Most lines that one read gives, known once open.
        line_rate: Lines per second that were asked for; None if the source runs as fast as it is read.
        counters: What the source has counted so far, by name; at least `lines_sent`.
    """

    spec: str
    width: int
    channels: int
    block_lines: int
    line_rate: float | None

    @property
    def counters(self) -> Mapping[str, int]:
        """See the class."""

    def open(self) -> None:
        """Makes the source ready to read.

        Raises:
            InputError: What the source is named after does not exist or is not what it must be.
        """

    def read(self, into: npt.NDArray[np.uint8], timeout_s: float) -> BlockInfo:
        """Waits for the next lines.

        Line numbers rise without holes: lines that do not come are reported as LOST or INCOMPLETE.

        Args:
            into: uint8 (block_lines, width) or (block_lines, width, channels): where pixels go, from its first line on.
            timeout_s: Longest wait, seconds, before TIMEOUT is returned.

        Returns:
            What came.

        Raises:
            CameraLostError: The camera is gone, and the source does not look for it itself.
        """

    def close(self) -> None:
        """Frees what the source holds. A source that was never opened, or is closed already, may be closed."""


def opened(source: Source) -> Source:
    """Opens a source, and leaves nothing behind where that fails.

    Raises:
        InputError: See `Source.open`.
    """
    try:
        source.open()
    except BaseException:
        source.close()
        raise
    return source


def require_encoder(source: Source) -> None:
    """Refuses an open source that says that it gives no encoder counts; one that says nothing is believed to.

    Raises:
        InputError: It gives none.
    """
    if not getattr(source, "has_encoder", True):
        raise InputError(
            f"{source.spec} gives no encoder counts: no camera does as yet, only a recording that has them; expected the line "
            "pitch instead of --mm-per-count: where the encoder triggers the lines, every line is one pitch"
        )


def line_shape(source: Source) -> tuple[int, ...]:
    """Shape of one line of an open source: (width,) for grey, (width, channels) for colour."""
    return (source.width,) if source.channels == 1 else (source.width, source.channels)
