"""Finds the fastest and the widest web that is inspected without a drop on this machine.

Real lines are sent from memory at an exact rate; what the detector cannot take in time is dropped by the ring, and counts.
--find rate looks for the highest line rate at the full width, --find width for the widest web at --line-rate. What was found is
then streamed for --seconds, or a tenth less until that is held, since a ring hides for a while that a detector is too slow. Told are
the time from the arrival of a strip's last line to its verdict, its context waited for, and the share of each stage. The camera and its driver cost nothing here; see `flawline camera test` for those.

  flawline bench stream fabric.flaw --lines web.png --find rate --strip-lines 512
  flawline bench stream fabric.flaw --lines web.png --find width --line-rate 10000 --strip-lines 64
"""

import argparse
import sys
from pathlib import Path

import msgspec

from flawline.benchmarks.commands.options import add_output, positive, say
from flawline.benchmarks.environment import describe
from flawline.benchmarks.record import detector_facts, heading, result
from flawline.benchmarks.stream.search import STEP, Setting, highest, holds, stream
from flawline.benchmarks.tables import write_json
from flawline.runtime.bundle import read
from flawline.runtime.engines import fastest_engine
from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image
from flawline.runtime.stream import Summary
from flawline.runtime.web.geometry import Geometry

MEANING = {
    "line_rate": "with width_px: the largest of which a stream of that length dropped no line, within a tenth of one that did",
    "latency_ms": "from the arrival of a strip's last line to its verdict, lines of its context waited for",
    "stage_shares": "share of each stage in that: context is the wait for the lines behind the strip, wait that in the ring",
    "pixel_rate": "pixels of web per second",
}
_LOWEST_RATE = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench stream`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="made by `flawline fit --web`")
    parser.add_argument("--lines", type=Path, metavar="IMAGE", required=True, help="real lines, as an image of the web")
    parser.add_argument("--find", choices=("rate", "width"), default="rate", help="default: %(default)s")
    parser.add_argument(
        "--line-rate", metavar="N", type=float, default=10_000, help="for --find width (default: %(default)s)"
    )
    parser.add_argument(
        "--highest-rate", metavar="N", type=float, default=50_000, help="for --find rate (default: %(default)s)"
    )
    parser.add_argument("--strip-lines", metavar="N", type=positive, help="default: as fitted")
    parser.add_argument(
        "--seconds", metavar="S", type=float, default=20.0, help="of the last stream (default: %(default)s)"
    )
    parser.add_argument(
        "--trial-seconds", metavar="S", type=float, default=5.0, help="of each trial (default: %(default)s)"
    )
    parser.add_argument(
        "--ring-seconds", metavar="S", type=float, default=0.5, help="lines that may wait (default: %(default)s)"
    )
    parser.add_argument("--backend", default="auto", help="engine (default: the fastest)")
    parser.add_argument("--precision", help="of the network (default: the bundle's)")
    parser.add_argument("--threads", metavar="N", type=positive, default=2, help="default: %(default)s")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Searches, streams once more, and prints."""
    environment = describe()
    bundle = read(args.bundle).select(args.precision)
    geometry = Geometry.of(bundle.padim).resized(args.strip_lines)
    lines = read_image(args.lines)
    if len(lines) < geometry.strip_lines:
        raise InputError(f"{args.lines} has {len(lines)} lines; expected {geometry.strip_lines} or more, a strip")
    backend = fastest_engine(bundle, threads=args.threads) if args.backend == "auto" else args.backend

    def tried(setting: Setting) -> Summary:
        summary = stream(bundle, lines, setting, backend=backend, threads=args.threads, ring_s=args.ring_seconds)
        say(
            f"{setting.width} px at {setting.line_rate:.0f} lines/s: "
            + (
                "held"
                if holds(summary)
                else f"{sum(summary.lines_lost.values())} of {summary.lines_sent} lines dropped"
            )
        )
        return summary

    def at(value: float, seconds: float) -> Setting:
        if args.find == "rate":
            return Setting(lines.shape[1], value, geometry.strip_lines, seconds)
        return Setting(round(value), args.line_rate, geometry.strip_lines, seconds)

    # A trial shows no drop before the ring has had time to fill.
    seconds = max(args.trial_seconds, 2 * args.ring_seconds)
    low, high = (_LOWEST_RATE, args.highest_rate) if args.find == "rate" else (geometry.stride, lines.shape[1])
    held = highest(lambda value: holds(tried(at(value, seconds))), low, high)
    sys.stdout.write(heading(environment) + "\n")
    if held is None:
        sys.stdout.write(f"not even {low:.0f} {'lines/s' if args.find == 'rate' else 'px'} are held\n")
        return 1
    while not holds(summary := tried(setting := at(held, args.seconds))):
        held /= STEP
        if held < low:
            sys.stdout.write(f"nothing is held for {args.seconds:g} s\n")
            return 1
    found = _found(setting, summary)
    sys.stdout.write(_text(backend, setting, geometry, summary, found))
    if args.json is not None:
        settings = {
            **{name: value for name, value in vars(args).items() if isinstance(value, str | int | float)},
            "lines": args.lines.name,
            "backend": backend,
            "detector": detector_facts(bundle.manifest),
        }
        write_json(args.json, result("stream", environment, settings=settings, meaning=MEANING, results=found))
    return 0


def _found(setting: Setting, summary: Summary) -> dict[str, object]:
    network = summary.stages_ms.get("network")
    return {
        "width_px": setting.width,
        "line_rate": setting.line_rate,
        "pixel_rate": setting.width * setting.line_rate,
        "network_p50_ms": None if network is None else network.p50,
        **{
            name: msgspec.to_builtins(getattr(summary, name))
            for name in ("seconds", "strips", "lines_sent", "lines_received", "latency_ms", "stages_ms", "stage_shares")
        },
    }


def _text(backend: str, setting: Setting, geometry: Geometry, summary: Summary, found: dict[str, object]) -> str:
    latency = summary.latency_ms
    lines = [
        f"{backend}, strips of {setting.strip_lines} lines with {geometry.halo} of context on each side",
        f"held: {setting.width} px at {setting.line_rate:.0f} lines/s, {setting.width * setting.line_rate / 1e6:.2f} Mpixel/s of web, "
        f"{summary.lines_sent} lines in {summary.seconds:.0f} s",
    ]
    if latency is not None:
        lines.append(
            f"last line to verdict: p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms, max {latency.max:.1f} ms"
        )
    shares = found["stage_shares"]
    if isinstance(shares, dict):
        lines.append("shares: " + ", ".join(f"{stage} {share:.1%}" for stage, share in shares.items()))
    return "\n".join(lines) + "\n"
