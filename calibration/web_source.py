"""Good web from a source: blocks of new web, joined to stretches without a gap."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import numpy.typing as npt

from flawline.calibration.web_flat_field import KnownFlatField
from flawline.runtime.cameras import BlockInfo, Source, Status, line_shape, open_source
from flawline.runtime.errors import InputError
from flawline.runtime.memory import require
from flawline.runtime.progress import progress
from flawline.runtime.web.odometer import Odometer

Lines = npt.NDArray[np.uint8]

MOST_LINES = 32_768
"""Lines that are taken from a source."""

SILENCE_S = 10.0
"""After so long without new web, and twice what a block takes at the rate that was asked for, the web is over."""

_READ_TIMEOUT_S = 1.0


def take_stretches(spec: str, flat_field: KnownFlatField | None, say: Callable[[str], object]) -> list[Lines]:
    """Takes good web until the source ends, falls silent or has given `MOST_LINES` lines.

    Where blocks have encoder counts, only what is new web by them is taken, as in the stream.

    Args:
        spec: Of the source.
        flat_field: Taken out of every line, if given.
        say: Takes each line that tells what was left out.

    Returns:
        Stretches without a gap, uint8 (lines, width[, 3]), one at least.

    Raises:
        InputError: The source cannot be opened or gives no new web, or the flat field is of other lines.
        ResourceError: What it gives would not fit into memory.
    """
    with closing(open_source(spec)) as source:
        shape = line_shape(source)
        # Blocks, and once more as the stretch they make.
        require(2 * MOST_LINES * int(np.prod(shape)), f"{MOST_LINES} lines of {spec}", "use a narrower web")
        correct = None if flat_field is None else flat_field.corrector(shape)
        taking = _Taking(source, shape)
        stretches: list[list[Lines]] = []
        for lines, goes_on in progress(taking.blocks(), label="taking web", unit="block"):
            if correct is not None:
                correct(lines)
            if not goes_on:
                stretches.append([])
            stretches[-1].append(lines)
    if not stretches:
        raise InputError(f"source {spec!r} {taking.nothing()}; expected good web")
    for line in taking.left_out():
        say(f"{spec}: {line}")
    return [np.concatenate(blocks) for blocks in stretches]


class _Taking:
    """Reads a source, and keeps account of what is no new web."""

    def __init__(self, source: Source, shape: tuple[int, ...]) -> None:
        self._source = source
        self._buffer = np.empty((source.block_lines, *shape), np.uint8)
        self._silence_s = SILENCE_S + 2 * source.block_lines / (source.line_rate or np.inf)
        self._odometer: Odometer | None = None
        self._received = 0
        self._taken = 0
        self._is_silent = False

    def blocks(self) -> Iterator[tuple[Lines, bool]]:
        """Blocks of new web, and whether each goes on from the one before."""
        next_line: int | None = None
        heard = time.monotonic()
        while self._taken < MOST_LINES:
            info = self._source.read(self._buffer, _READ_TIMEOUT_S)
            if info.status is Status.END:
                return
            if info.status is Status.OK:
                self._received += info.lines
                self._odometer = self._odometer or _odometer(info)
                stretch = self._odometer.locate(info)
                if stretch is not None:
                    lines = self._buffer[stretch.rows][: MOST_LINES - self._taken].copy()
                    self._taken += len(lines)
                    yield lines, stretch.first_line == next_line
                    next_line = stretch.first_line + len(lines)
                    heard = time.monotonic()
            elif info.status is not Status.TIMEOUT and self._is_gap(info):
                next_line = None
            if time.monotonic() - heard > self._silence_s:
                self._is_silent = True
                return

    def _is_gap(self, lost: BlockInfo) -> bool:
        """False for what is lost while the web runs back, over web that was seen."""
        return self._odometer is not None and self._odometer.lost(lost.first_line, lost.lines) is not None

    def nothing(self) -> str:
        """Why nothing was taken."""
        if self._received and self._odometer is not None:
            return (
                f"gave {self._received} lines, of which none is web that ran forwards by its encoder ({self._account()}); "
                "the encoder must count up"
            )
        return f"gave no line for {self._silence_s:.0f} s" if self._is_silent else "gives no lines"

    def left_out(self) -> Iterator[str]:
        """What there is to say of web that was not taken."""
        odometer = self._odometer
        if odometer is not None and (odometer.reversed_lines or odometer.repeated_lines or odometer.encoder_faults):
            yield f"by the encoder not all lines are new web ({self._account()}); only new web is fitted"
        if self._is_silent:
            yield f"no new web for {self._silence_s:.0f} s: going on with the {self._taken} lines that came before"

    def _account(self) -> str:
        odometer = self._odometer
        assert odometer is not None  # or no line came
        return (
            f"{odometer.reversed_lines} lines ran back, {odometer.repeated_lines} stood or had been seen, counts of "
            f"{odometer.encoder_faults} blocks cannot be believed"
        )


def _odometer(first: BlockInfo) -> Odometer:
    """What tells new web; millimetres are not asked of it."""
    return Odometer(mm_per_line=1.0) if first.encoder is None else Odometer(mm_per_count=1.0)
