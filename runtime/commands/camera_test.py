"""Reads a camera as fast as it sends, and tells the rate that was held, what was lost, and why.

Lines are thrown away once they are here: what is lost in this test is lost by camera, wire, library or reader.
A gap between blocks that is far longer than the usual one shows where a stream would wait. Delays are from the camera's time
of a block until it was read, without what the fastest blocks take as well: clocks of camera and host have no common zero.

Exit status 1 if lines were lost, or if none came.

  flawline camera test 'pylon:40012345?width=4096&block=256&line_rate=20000' --seconds 60
  flawline camera test replay:web --json
"""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flawline.runtime.cameras.trial import Trial
    from flawline.runtime.histogram import Percentiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("source", metavar="SPEC", help="the camera's name, as `flawline camera list` gives it")
    parser.add_argument(
        "--seconds", metavar="N", type=float, default=5.0, help="how long; Ctrl-C ends it before (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(options: argparse.Namespace) -> int:
    """Tries a camera. Returns 1 if lines were lost or none came, else 0."""
    import contextlib
    import math

    import msgspec

    from flawline.runtime.cameras import open_source
    from flawline.runtime.cameras.trial import try_source
    from flawline.runtime.commands.stream import stop_on_signal
    from flawline.runtime.errors import InputError

    if not 0 < options.seconds < math.inf:
        raise InputError(f"--seconds {options.seconds}; expected a number above 0")
    with contextlib.closing(open_source(options.source)) as source, stop_on_signal() as stop:
        trial = try_source(source, options.seconds, stop)
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(trial), indent=2).decode() + "\n")
    else:
        sys.stdout.write("\n".join(_lines(trial)) + "\n")
    return 0 if trial.is_passed else 1


def _times(times: "Percentiles") -> str:
    return f"p50 {times.p50:.2f} ms, p99 {times.p99:.2f} ms, longest {times.max:.2f} ms"


def _lines(trial: "Trial") -> list[str]:
    pixels = "grey" if trial.channels == 1 else "RGB"
    lines = [
        trial.source,
        f"  format    {trial.width} px, {pixels}, 8 bits, blocks of {trial.block_lines} lines",
        f"  received  {trial.lines_received} lines in {trial.seconds:.1f} s",
    ]
    if trial.line_rate_held is not None:
        asked = "as fast as it sends" if trial.line_rate_asked is None else f"{trial.line_rate_asked:.0f} asked for"
        lines.append(f"  rate      {trial.line_rate_held:.0f} lines/s ({asked}), {trial.megabytes_per_s:.1f} MB/s")
    if trial.gap_ms is not None:
        lines.append(f"  gaps      between blocks: {_times(trial.gap_ms)}")
    if trial.delay_ms is not None:
        lines.append(f"  delays    until read, beyond the fastest block: {_times(trial.delay_ms)}")
    lines += [
        f"  lost      {count} lines: {reason}" + (f" ({trial.details[reason]})" if trial.details[reason] else "")
        for reason, count in trial.lines_lost.items()
    ] or ["  lost      nothing" if trial.lines_received else "  lost      nothing, but no line came"]
    counters = ", ".join(f"{name} {count}" for name, count in trial.counters.items() if count)
    return [*lines, f"  timeouts  {trial.timeouts}", f"  counters  {counters or 'all 0'}"]
