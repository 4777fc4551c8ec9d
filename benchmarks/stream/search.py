"""The most that is held without a drop, found by halving; every trial is a whole stream in real time."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.stream.source import MemorySource
from flawline.runtime.bundle import Bundle
from flawline.runtime.stream import Summary
from flawline.runtime.stream.web_pipeline import WebStream
from flawline.runtime.web.inspector import WebInspector
from flawline.runtime.web.odometer import Odometer

STEP = 1.1
"""How near what holds is to what does not."""


class Setting(NamedTuple):
    """A stream to try.

    Attributes:
        width: Pixels of a line.
        line_rate: Lines per second.
        strip_lines: Height of a strip.
        seconds: How long.
    """

    width: int
    line_rate: float
    strip_lines: int
    seconds: float


class NullSink:
    """Takes events and forgets them."""

    def emit(self, event: object) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def stream(
    bundle: Bundle, lines: npt.NDArray[np.uint8], setting: Setting, *, backend: str, threads: int, ring_s: float
) -> Summary:
    """Streams for a while, dropping what comes when the ring is full.

    Args:
        bundle: One for a web.
        lines: uint8 (n, width[, 3]), at least as wide as the setting.
        setting: What to try.
        backend: Name of the engine.
        threads: Of engine and kernel.
        ring_s: Seconds of lines that the ring holds.
    """
    cut = np.ascontiguousarray(lines[:, : setting.width])
    block = min(64, setting.strip_lines)
    with WebInspector(
        bundle,
        setting.width,
        strip_lines=setting.strip_lines,
        tile_px=one_tile(bundle, setting.width),
        backend=backend,
        threads=threads,
    ) as inspector:
        total = math.ceil(setting.line_rate * setting.seconds / block) * block
        source = MemorySource(cut, line_rate=setting.line_rate, block_lines=block, total=total)
        web = WebStream(
            inspector=inspector,
            threshold=bundle.manifest.threshold.score,
            p_value=bundle.p_value,
            sinks=[NullSink()],
            odometer=Odometer(mm_per_line=0.1),
            max_defect_lines=4096,
            policy="drop-newest",
            ring_blocks=max(2, math.ceil(setting.line_rate * ring_s / block)),
        )
        return web.run(source)


def holds(summary: Summary) -> bool:
    """Whether nothing was dropped."""
    return not any(summary.lines_lost.values())


def highest(tried: Callable[[float], bool], low: float, high: float, ratio: float = STEP) -> float | None:
    """The largest value that holds.

    Args:
        tried: Whether a value holds; those above one that does not are taken not to hold either.
        low: Smallest value of interest.
        high: Largest.
        ratio: How near the answer is to the smallest that does not hold.

    Returns:
        A value that held; None if not even the smallest did.
    """
    if tried(high):
        return high
    if not tried(low):
        return None
    while high / low > ratio:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if tried(middle) else (low, middle)
    return low


def one_tile(bundle: Bundle, width: int) -> int | None:
    """A tile as wide as the web, so that no context is computed between tiles; None where the width is fitted."""
    stride = bundle.manifest.network.total_stride
    return None if bundle.padim.gaussian.tie == "column" else -(-width // stride) * stride
