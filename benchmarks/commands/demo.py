"""Does the main job on real images, end to end, and writes a report page.

Fits a detector on good solar cells, evaluates it on others, streams some as the web of a line camera, measures time and
memory, and compares projections. The images come with the package elpv-dataset (CC BY-NC-SA 4.0: not for commercial
use). Everything is written to DIR; running it again replaces what it wrote there and leaves other files alone.

  flawline demo --out demo
"""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from flawline.benchmarks import demo, report
from flawline.benchmarks.commands.options import add_threads
from flawline.benchmarks.environment import describe
from flawline.benchmarks.jl import study
from flawline.benchmarks.record import result
from flawline.benchmarks.tables import write_json
from flawline.benchmarks.timing import null_overhead
from flawline.runtime.files import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline demo`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything that is made")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline demo`."""
    start = time.monotonic()
    out, threads = args.out, args.threads
    dataset, bundle_path, web = out / "dataset", out / "bundle", out / "web"
    environment, null = describe(), null_overhead()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - start:6.1f} s  {line}\n")
        sys.stdout.flush()

    demo.prepare(out)
    terms = demo.write_dataset(dataset)
    say(f"solar cells of the ELPV data set in {dataset}; licence of the images: {terms}")
    bundle = demo.fit(dataset, bundle_path, threads, say)
    say(f"fitted: {bundle_path}, {bundle.total_bytes / 1e6:.1f} MB")
    scored, evaluation = demo.measure_accuracy(bundle_path, dataset, threads)
    write_json(out / "evaluation.json", asdict(evaluation))
    say(
        f"evaluated on {evaluation.images} other cells: image AUROC {evaluation.image_auroc:.4f}, "
        f"{evaluation.false_rejects} false rejects, {evaluation.misses} of {evaluation.defective} flaws missed"
    )
    items = [one.item for one in scored]
    streamed = demo.stream(bundle_path, web, out / "stream.jsonl", demo.write_web(items, web))
    summary = streamed.summary
    say(
        f"streamed {summary.frames} cells at {streamed.line_rate} lines/s: {len(streamed.rejected)} rejected, "
        f"{streamed.false_rejects} of them falsely, {streamed.misses} flaws missed, "
        f"{sum(summary.lines_lost.values())} lines lost"
        + ("" if summary.latency_ms is None else f", verdict after {summary.latency_ms.p50:.1f} ms (p50)")
    )
    measured, floor, peak = demo.measure_latency(bundle_path, items)
    results = {"latency": [asdict(one) for one in measured], "floor": asdict(floor), "peak_memory_bytes": peak}
    write_json(
        out / "latency.json",
        result("latency", environment, settings={"threads": 1}, meaning={}, results=results, null=null),
    )
    say(
        f"a frame takes {measured[0].end_to_end.p50_ns / 1e6:.1f} ms (p50, one thread), peak memory {peak / 1e6:.0f} MB"
    )
    outcome = demo.measure_projections(threads, say)
    write_json(out / "jl.json", study.as_json(outcome, environment, null))

    plots_folder = out / "plots"
    plots_folder.mkdir()
    found = demo.Demo(out, terms, bundle, scored, evaluation, streamed, measured, floor, peak, outcome, environment)
    page = report.make(found, plots_folder, commands(dataset, web))
    write_whole(out / "report.html", page.encode())
    say(f"report: {out / 'report.html'}")
    return 0


def commands(dataset: Path, web: Path) -> list[str]:
    """Command lines that do the same with a bundle of one's own, from where flawline was installed into .venv."""
    words = [
        f"fit {dataset}/train/good --out my.flaw --calibration-images {demo.CALIBRATION_IMAGES}",
        f"evaluate my.flaw {dataset}",
        f"score my.flaw {dataset}/test/defective/*.png --heatmaps heatmaps",
        f"stream my.flaw --source 'replay:{web}?line_rate={demo.LINE_RATE}' --frame-lines {demo.CELL_LINES}",
        f"bench latency my.flaw --images {dataset}/test/good",
        f"bench jl --data elpv-{demo.CELLS} --quick --plots plots",
    ]
    return [f".venv/bin/flawline {line}" for line in words]
