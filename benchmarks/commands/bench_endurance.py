"""Streams a web for an hour and sees whether memory stays flat, no line is dropped and positions stay true.

Real lines are sent from memory at an exact rate, there and back so that they have no seam, through the whole stream: events go to
a file, pictures of defects and the raw blocks around them are kept, in --folder, which is removed at the end. Black and
white squares are drawn at known lines, and must be reported there from the first to the last; positions come from an
encoder whose speed goes up and down and whose counter wraps. Every 60th of the run is told as it ends.

The status is 1 if a line was lost, if memory behind the first tenth of the run grew by more than --growth-mb, if a mark was not reported,
if the marks' lines differ at all by more or less than the first one's, or their millimetres by a hundredth of a line pitch, if their scores differ
by a thousandth, which a line's shift against the map's rows exceeds, if one was told with another block's time, or if the
camera's clock and the line numbers moved apart by more than a block, 64 lines or less. --plant shows that it can fail.

  flawline bench endurance fabric.flaw --lines web.png
  flawline bench endurance fabric.flaw --lines web.png --minutes 5 --json endurance.json
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from flawline.benchmarks.commands.options import add_output, positive, say
from flawline.benchmarks.environment import describe
from flawline.benchmarks.record import detector_facts, heading, result
from flawline.benchmarks.stream.endurance import MOST_GROWTH_KB, Endurance, Plan, endure, line_mm
from flawline.benchmarks.stream.faults import FAULTS
from flawline.benchmarks.stream.monitor import Interval
from flawline.benchmarks.tables import write_json
from flawline.runtime.bundle import read
from flawline.runtime.engines import fastest_engine
from flawline.runtime.errors import InputError
from flawline.runtime.files import make_folder
from flawline.runtime.images import read_image
from flawline.runtime.web.geometry import Geometry

MEANING = {
    "intervals": "parts of the run: minutes of web until the end, lines lost, largest resident memory seen and peak of the process (KiB), "
    "most lines that waited, last line of a strip to its verdict (ms), processor time over time",
    "growth": "of resident memory behind the first tenth of the run: largest less that at the end of that tenth (KiB), and slope",
    "drift": "of the marks: largest less smallest distance between reported and true line, and in mm; the last mark's less the first's; "
    "largest over smallest score; marks told with another block's time",
    "clock_drift_lines": "camera's clock times line rate less line number: smallest of the last tenth of the blocks less that of the first",
    "written_bytes": "events, pictures and recording",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench endurance`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="made by `flawline fit --web`")
    parser.add_argument("--lines", type=Path, metavar="IMAGE", required=True, help="real lines, as an image of the web")
    parser.add_argument("--line-rate", metavar="N", type=_above_zero, default=2000.0, help="default: 2000")
    parser.add_argument("--minutes", metavar="M", type=_above_zero, default=60.0, help="default: 60")
    parser.add_argument("--strip-lines", metavar="N", type=positive, default=512, help="default: %(default)s")
    parser.add_argument(
        "--mark-seconds", metavar="S", type=_above_zero, default=10.0, help="from mark to mark, about (default: 10)"
    )
    parser.add_argument(
        "--ring-seconds", metavar="S", type=_above_zero, default=2.0, help="lines that may wait (default: 2)"
    )
    parser.add_argument(
        "--growth-mb",
        metavar="N",
        type=_above_zero,
        default=MOST_GROWTH_KB / 1024,
        help="MiB that memory may grow by behind the first tenth (default: %(default)g)",
    )
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, help="where to write meanwhile (default: temporary files)"
    )
    parser.add_argument("--backend", default="auto", help="engine (default: the fastest)")
    parser.add_argument("--precision", help="of the network (default: the bundle's)")
    parser.add_argument("--threads", metavar="N", type=positive, default=2, help="default: %(default)s")
    parser.add_argument(
        "--plant",
        choices=FAULTS,
        metavar="FAULT",
        help="have something go wrong: " + "; ".join(f"{name}, {what}" for name, what in FAULTS.items()),
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Streams, tells every interval, and judges."""
    environment = describe()
    bundle = read(args.bundle).select(args.precision)
    # A bundle for no web, or one without such strips, is refused before an engine is tried and anything is said.
    Geometry.of(bundle.padim).resized(args.strip_lines)
    lines = read_image(args.lines)
    plan = Plan(
        args.line_rate,
        args.minutes,
        args.strip_lines,
        mark_s=args.mark_seconds,
        ring_s=args.ring_seconds,
        fault=args.plant,
    )
    backend = fastest_engine(bundle, threads=args.threads) if args.backend == "auto" else args.backend
    say(f"{backend}: {plan.total} lines of {lines.shape[1]} px at {plan.line_rate:g} lines/s, {plan.minutes:g} minutes")
    if args.folder is not None:
        make_folder(args.folder)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="endurance-") as folder:
        _require_room(Path(folder), plan.total * lines[0].nbytes)
        ran = endure(
            bundle, lines, plan, Path(folder), backend=backend, threads=args.threads, tell=lambda one: say(_line(one))
        )
    failures = ran.failures(line_mm(bundle), round(args.growth_mb * 1024))
    sys.stdout.write(heading(environment) + "\n" + _text(ran, backend, plan))
    sys.stdout.write("".join(f"FAILED: {failure}\n" for failure in failures) or "everything held\n")
    if args.json is not None:
        settings = {
            **{name: value for name, value in vars(args).items() if isinstance(value, str | int | float)},
            "lines": args.lines.name,
            "backend": backend,
            "detector": detector_facts(bundle.manifest),
        }
        results = {
            "summary": msgspec.to_builtins(ran.summary),
            "intervals": [msgspec.to_builtins(each._asdict()) for each in ran.intervals],
            "growth": ran.growth._asdict(),
            "drift": ran.drift._asdict(),
            "clock_drift_lines": ran.clock_drift_lines,
            "written_bytes": ran.written_bytes,
            "failures": failures,
        }
        write_json(args.json, result("endurance", environment, settings=settings, meaning=MEANING, results=results))
    return 1 if failures else 0


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}'; expected a number above 0 and below 1e9")
    return value


def _require_room(folder: Path, most_bytes: int) -> None:
    """A web that is flawed all along is recorded whole."""
    free = shutil.disk_usage(folder).free
    if free < most_bytes:
        raise InputError(
            f"{folder.parent} has {free / 1e9:.1f} GB free; expected {most_bytes / 1e9:.1f} GB, the whole web, for a recording: "
            "name another --folder"
        )


def _line(one: Interval) -> str:
    latency = one.latency_ms
    times = "" if latency is None else f", last line to verdict p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms"
    return (
        f"{one.minutes:6.2f} min: {one.rss_kb} KiB resident, peak {one.peak_kb}; {one.lines_lost} lines lost, at most "
        f"{one.ring_peak_lines} waited{times}; {one.cpu_cores:.2f} cores"
    )


def _text(ran: Endurance, backend: str, plan: Plan) -> str:
    summary, growth, drift = ran.summary, ran.growth, ran.drift
    lost = ", ".join(f"{reason} {lines}" for reason, lines in summary.lines_lost.items()) or "none"
    counters, pictures = summary.source_counters, summary.pictures
    lines = [
        f"{backend}, strips of {plan.strip_lines} lines, {plan.minutes:g} minutes at {plan.line_rate:g} lines/s"
        + (f"; planted fault: {plan.fault}" if plan.fault else ""),
        f"lines: {summary.lines_sent} sent, {summary.lines_received} received; lost: {lost}; at most "
        f"{max(each.ring_peak_lines for each in ran.intervals)} waited",
        f"memory: {growth.warm_kb} KiB resident after the first tenth, then at most {growth.largest_kb:+d} KiB, "
        f"{growth.kb_per_minute:+.1f} KiB/min; peak {ran.intervals[-1].peak_kb} KiB",
        f"marks: {drift.marks}, {drift.missed} not found; drift {drift.lines} lines, {drift.mm:.2g} mm, last against first "
        f"{drift.last_lines:+d} lines; scores differ by {drift.peak_ratio - 1:.1e}",
        f"clock against lines: {ran.clock_drift_lines:+.2f} lines",
        f"written: {ran.written_bytes / 1e6:.1f} MB; {summary.defects} defects, {pictures.written} pictures "
        f"({pictures.dropped} dropped, {pictures.failed} failed), {counters['recorded_blocks']} blocks "
        f"({counters['recorder_dropped_blocks']} dropped, {counters['recorder_failed_blocks']} failed)",
    ]
    if summary.latency_ms is not None:
        latency = summary.latency_ms
        lines.append(
            f"last line to verdict: p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms, max {latency.max:.1f} ms"
        )
    return "\n".join(lines + summary.troubles) + "\n"
