"""Measures where the time of a frame goes, and what a bundle takes in bytes and memory.

Frames are real and different from call to call; they are in memory before the clock starts. Without BUNDLE a detector
is fitted on the images first, with --weights random if only time matters.

  flawline bench latency part.flaw --images good/
  flawline bench latency --images good/ --dim 100
  flawline bench latency --images good/ --backbone resnet18 --weights random
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from flawline.benchmarks import latency
from flawline.benchmarks.commands.options import add_output, positive, say, several
from flawline.benchmarks.environment import describe
from flawline.benchmarks.latency import Floor, Latency
from flawline.benchmarks.record import detector_facts, heading, result, unstable
from flawline.benchmarks.tables import table, write_json
from flawline.benchmarks.timing import null_overhead
from flawline.export.commands.options import add_network, fit_options
from flawline.export.fit import fit_bundle
from flawline.runtime.bundle import Bundle, read
from flawline.runtime.images import list_images, read_image

MAX_FRAMES = 64
MAX_FIT_IMAGES = 120
MEANING = {
    "resize": "frame in memory to the network's uint8 input",
    "network": "the graph: normalisation, network, projection",
    "kernel": "upsampling and sum over scales, Mahalanobis distances, smoothing, maximum, copy of the map",
    "regions": "connected regions above the threshold",
    "outside_network": "end to end less network, frame by frame",
    "end_to_end": "the detector's call, from frame to result",
    "floor": "time to read the packed factors once at the fastest plain read of the same bytes in the same run",
    "peak_memory_bytes": "largest resident size of `flawline score BUNDLE IMAGE` in a process of its own",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench latency`."""
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="fitted on the images first if left out")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of real frames")
    parser.add_argument(
        "--threads",
        dest="thread_counts",
        metavar="N,...",
        type=several(positive),
        default=(1, 2),
        help="numbers of threads (default: 1,2)",
    )
    parser.add_argument("--runs", metavar="N", type=positive, default=300, help="timed frames (default: %(default)s)")
    fit = parser.add_argument_group("without BUNDLE")
    add_network(fit)
    fit.add_argument("--dim", dest="dimension", metavar="D", type=positive, default=100, help="default: %(default)s")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench latency`."""
    images = list_images(args.images)
    frames = [read_image(path) for path in images[:MAX_FRAMES]]
    with _bundle(args, images) as path:
        bundle = read(path)
        # After the fit, whose load would otherwise be reported as somebody else's.
        environment, null = describe(), null_overhead()
        measured, floors = [], []
        for threads in args.thread_counts:
            measured += latency.measure(path, frames, threads=threads, runs=args.runs)
            floors.append(latency.floor(bundle, threads=threads))
        peak = latency.peak_memory_bytes(path, images[0])
    if args.json:
        settings = {
            "runs": args.runs,
            "frames": len(frames),
            "threads": list(args.thread_counts),
            "bundle_sha256": bundle.hash,
            "detector": detector_facts(bundle.manifest),
        }
        results = {
            "latency": [asdict(one) for one in measured],
            "floor": [asdict(one) for one in floors],
            "bundle_bytes": bundle.total_bytes,
            "factor_bytes": bundle.statistics["factors"].nbytes,
            "peak_memory_bytes": peak,
        }
        write_json(
            args.json, result("latency", environment, settings=settings, meaning=MEANING, results=results, null=null)
        )
    sys.stdout.write(
        "\n".join([heading(environment, null), "", *_text(bundle, measured, floors, peak, len(frames))]) + "\n"
    )
    for one in measured:
        for line in unstable({f"{one.case}, threads {one.threads}, end to end": one.end_to_end}):
            say(line)
    return 0


@contextmanager
def _bundle(args: argparse.Namespace, images: Sequence[Path]) -> Iterator[Path]:
    if args.bundle is not None:
        yield args.bundle
        return
    with tempfile.TemporaryDirectory(prefix="flawline-latency-") as folder:
        path = Path(folder) / "bundle"
        fit_bundle(images[:MAX_FIT_IMAGES], path, fit_options(args), say)
        yield path


def _text(
    bundle: Bundle, measured: Sequence[Latency], floors: Sequence[Floor], peak: int, frames: int
) -> Iterator[str]:
    manifest = bundle.manifest
    yield (
        f"{manifest.network.name} at {manifest.input.height} x {manifest.input.width}, "
        f"d = {manifest.projection.dimension}, map {manifest.map.height} x {manifest.map.width}, "
        f"{manifest.gaussian.factors} factors, {frames} frames in turn"
        + (", random weights" if manifest.network.weights.random else "")
    )
    heads = ("ms", "p50", "p90", "p99", "max", "runs")
    for one in measured:
        yield ""
        yield f"threads: {one.threads}, {one.case} ({one.rejected_frames} of {one.end_to_end.runs} frames rejected)"
        timings = one.stages | {"outside the network": one.outside_network, "end to end": one.end_to_end}
        yield table(heads, [(name, *timing.ms(), timing.runs) for name, timing in timings.items()])
    yield ""
    for floor in floors:
        kernel = next(one.stages["kernel"].p50_ns for one in measured if one.threads == floor.threads)
        yield (
            f"kernel floor, threads: {floor.threads}: {floor.factor_bytes / 1e6:.2f} MB of factors at "
            f"{floor.bytes_per_second / 1e9:.1f} GB/s are {floor.floor_ns / 1e6:.3f} ms; the whole kernel stage takes "
            f"{kernel / floor.floor_ns:.2f} times that"
        )
    positions, dimension = manifest.positions, manifest.projection.dimension
    yield (
        f"bundle {bundle.total_bytes / 1e6:.1f} MB, "
        f"of which factors {bundle.statistics['factors'].nbytes / 1e6:.1f} MB "
        f"(full fp32 inverses would take {positions * dimension**2 * 4 / 1e6:.1f} MB)"
    )
    yield f"peak memory of `flawline score` {peak / 1e6:.0f} MB"
