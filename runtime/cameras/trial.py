"""Reads a source as fast as it sends and keeps nothing: what rate is held, what is lost, and why."""

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np

from flawline.runtime.cameras.numbering import Delay
from flawline.runtime.cameras.source import BlockInfo, Source, Status, line_shape
from flawline.runtime.histogram import Histogram, Percentiles
from flawline.runtime.memory import require

_READ_TIMEOUT_S = 0.2


class Trial(msgspec.Struct, frozen=True):
    """What came of reading a source.

    Attributes:
        source: The words it was named by.
        width: Pixels of a line.
        channels: 1 for grey, 3 for RGB.
        block_lines: Lines of a block at most.
        line_rate_asked: Lines per second; None if none were asked for.
        line_rate_held: Lines received per second between the arrivals of the first and the last block; None if no time
            went by.
        megabytes_per_s: The same in 1e6 bytes of pixels.
        seconds: How long was read.
        lines_received: Lines whose pixels came.
        lines_lost: Lines that did not, by reason.
        details: The first explanation of each reason.
        timeouts: Reads in which nothing came within 0.2 s.
        gap_ms: Times between the arrivals of blocks; None if fewer than two came.
        delay_ms: From the source's time of a block until it was read, beyond what the fastest blocks took; None if none
            came.
        counters: The source's own.
    """

    source: str
    width: int
    channels: int
    block_lines: int
    line_rate_asked: float | None
    line_rate_held: float | None
    megabytes_per_s: float | None
    seconds: float
    lines_received: int
    lines_lost: Mapping[str, int]
    details: Mapping[str, str]
    timeouts: int
    gap_ms: Percentiles | None
    delay_ms: Percentiles | None
    counters: Mapping[str, int]

    @property
    def is_passed(self) -> bool:
        """Whether lines came, and all of them."""
        return self.lines_received > 0 and not self.lines_lost


def try_source(source: Source, seconds: float, stop: threading.Event) -> Trial:
    """Reads a source.

    Args:
        source: Open; it stays so.
        seconds: How long, unless the source ends before.
        stop: Ends the reading when set.

    Returns:
        What came.

    Raises:
        FlawlineError: The source cannot go on.
        ResourceError: A block would not fit into memory.
    """
    require(
        source.block_lines * math.prod(line_shape(source)),
        f"a block of {source.block_lines} lines of {source.spec}",
        "ask for smaller ones",
    )
    buffer = np.zeros((source.block_lines, *line_shape(source)), np.uint8)
    gaps, delays, delay = Histogram(), Histogram(), Delay()
    lost: Counter[str] = Counter()
    details: dict[str, str] = {}
    received = timeouts = 0
    first: BlockInfo | None = None
    last: BlockInfo | None = None
    start_ns = time.monotonic_ns()
    while not stop.is_set() and time.monotonic_ns() - start_ns < seconds * 1e9:
        info = source.read(buffer, _READ_TIMEOUT_S)
        if info.status is Status.END:
            break
        if info.status is Status.TIMEOUT:
            timeouts += 1
        elif info.status is Status.OK:
            received += info.lines
            delays.add(delay.of(info.camera_time_ns, time.monotonic_ns()))
            if last is not None:
                gaps.add(info.arrival_time_ns - last.arrival_time_ns)
            first, last = first or info, info
        else:
            reason = info.reason or info.status.value
            lost[reason] += info.lines
            details.setdefault(reason, info.detail)
    held = None
    if first is not None and last is not None and last.arrival_time_ns > first.arrival_time_ns:
        held = (received - first.lines) * 1e9 / (last.arrival_time_ns - first.arrival_time_ns)
    return Trial(
        source=source.spec,
        width=source.width,
        channels=source.channels,
        block_lines=source.block_lines,
        line_rate_asked=source.line_rate,
        line_rate_held=held,
        megabytes_per_s=None if held is None else held * buffer[0].nbytes / 1e6,
        seconds=(time.monotonic_ns() - start_ns) / 1e9,
        lines_received=received,
        lines_lost=dict(lost),
        details=details,
        timeouts=timeouts,
        gap_ms=gaps.percentiles(),
        delay_ms=delays.percentiles(),
        counters=dict(source.counters),
    )
