"""Measures where the time of a frame goes, and what a detector takes in bytes and memory.

Frames are real and different from call to call; they are in memory before the clock starts. Detectors are measured in
one run, in alternation. Without BUNDLE one is fitted per precision on the images first, with --weights random if only
time matters. Then, with several --dims or with --test, it says instead where the time goes at each dimension and which
one is worth it.

  flawline bench latency part.flaw --images good/
  flawline bench latency --images good/ --precisions fp32,int8 --backends onnxruntime
  flawline bench latency --images good/ --backbone resnet18 --weights random
  flawline bench latency --test tiles/ --dims 8,16,32,64,100,200,448 --precisions fp32,int8
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import get_args

from flawline.benchmarks.commands.options import add_output, add_precisions, one_of, positive, say, several
from flawline.benchmarks.costs import drawing, report, text
from flawline.benchmarks.costs.subject import CALIBRATION_IMAGES, Subject, fitted, from_bundle
from flawline.benchmarks.environment import describe
from flawline.benchmarks.record import detector_facts, heading, result, unstable
from flawline.benchmarks.tables import write_json
from flawline.benchmarks.timing import null_overhead
from flawline.calibration.statistics import FactorType, StatisticsOptions
from flawline.calibration.woodbury import Form
from flawline.export.commands.options import add_network, chosen, fit_options
from flawline.export.options import FitOptions
from flawline.runtime.backends import BACKENDS
from flawline.runtime.commands.options import add_map
from flawline.runtime.errors import InputError
from flawline.runtime.precisions import GPU_ENGINES

DIMENSION = 100
_ENGINES = (*BACKENDS, *sorted({name for names in GPU_ENGINES.values() for name in names}))
MEANING = {
    "dimension": "projected dimension d; or, of a reconstruction, principal components or values of the bottleneck",
    "resize": "frame in memory to the network's uint8 input",
    "network": "the graph: normalisation, network, projection; or the reconstruction of the frame",
    "kernel": "upsampling and sum over scales, Mahalanobis distances, smoothing, maximum, copy of the map; or, of a "
    "reconstruction, its error, maximum, copy of the map",
    "regions": "connected regions above the threshold",
    "outside_network": "end to end less network, frame by frame",
    "end_to_end": "the detector's call, from frame to result",
    "cpu_ns": "processor time of all threads of the process during the call, mean over frames",
    "floor": "time to read the packed factors once at the fastest plain read of the same bytes in the same run",
    "basis_floor": "time to read the principal components twice, in float32, at the fastest plain read of as many bytes in the same run",
    "batches": "stages of a call with one frame, and of a call with several divided by their number",
    "bundle_bytes": "manifest, graph, statistics and golden frames of this precision alone",
    "peak_memory_bytes": "largest resident size of `flawline score BUNDLE IMAGE` in a process of its own, one thread",
    "auto_peaks": "that of each precision with --backend auto, of the largest process: each engine is tried in one of its own",
    "memory": "resident size of this process, all detectors open, after the first rounds and at the end",
    "image_auroc": "area under the ROC over the test images of one split, seed 0",
    "unbeaten": "no other dimension of the same precision, engine and threads is as fast and as good, and one better",
    "gain_per_ms": "image AUROC over the next faster unbeaten dimension's, per ms of end to end p50 that it takes more",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench latency`."""
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="fitted on the images first if left out")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of real frames (default: those of --test)")
    parser.add_argument(
        "--threads",
        dest="thread_counts",
        metavar="N,...",
        type=several(positive),
        default=(1, 2),
        help="numbers of threads (default: 1,2)",
    )
    add_precisions(parser, "those that BUNDLE holds, or fp32")
    parser.add_argument(
        "--backends",
        metavar="NAME,...",
        type=several(one_of(_ENGINES)),
        help=f"engines: {', '.join(_ENGINES)} (default: all on the CPU that are installed, each where it computes in the "
        "precision)",
    )
    add_map(parser)
    parser.add_argument("--runs", metavar="N", type=positive, default=300, help="timed frames (default: %(default)s)")
    fit = parser.add_argument_group("without BUNDLE")
    add_network(fit)
    fit.add_argument(
        "--dims",
        "--dim",
        metavar="D,...",
        type=several(positive),
        help=f"one, or several for time by dimension (default: {DIMENSION})",
    )
    fit.add_argument("--factors", choices=get_args(FactorType), help=f"default: {StatisticsOptions.factors}")
    fit.add_argument("--form", choices=get_args(Form), help="of the factors (default: as `flawline fit` chooses)")
    fit.add_argument(
        "--test", metavar="SPEC", help="fit on a split of it and tell the AUROC: elpv-mono, elpv-poly or MVTec layout"
    )
    fit.add_argument("--fit-images", metavar="N", type=positive, help="as `bench accuracy` has it")
    fit.add_argument(
        "--calibration-images",
        metavar="N",
        type=positive,
        help=f"good images held out for the threshold (default: a fifth; {CALIBRATION_IMAGES} of --test)",
    )
    parser.add_argument("--plots", metavar="DIR", type=Path, help="draw several --dims as PNG files into this folder")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench latency`."""
    by_dimension = args.bundle is None and (args.test is not None or len(args.dims or ()) > 1)
    if args.map is not None and args.bundle is None:
        raise InputError(
            f"--map {args.map} without BUNDLE: PaDiM is fitted then; expected the bundle of a reconstruction"
        )
    if args.plots and not by_dimension:
        raise InputError("--plots draws time by dimension; expected several --dims, or --test, and no BUNDLE")
    measure = report.by_dimension if by_dimension else report.everything
    # Before a fit, whose load would be reported as somebody else's.
    environment, null = describe(), null_overhead()
    with tempfile.TemporaryDirectory(prefix="flawline-latency-") as folder:
        subject = _subject(args, Path(folder))
        measured = measure(subject, thread_counts=args.thread_counts, runs=args.runs)
    if args.json:
        settings = {
            "runs": args.runs,
            "frames": len(subject.frames),
            "threads": list(args.thread_counts),
            "test": subject.data,
            "bundle_sha256": subject.bundle.hash,
            "detector": detector_facts(subject.bundle.manifest),
        }
        write_json(
            args.json,
            result("latency", environment, settings=settings, meaning=MEANING, results=measured.results, null=null),
        )
    about = text.detector(subject.bundle.manifest, len(subject.frames), dimension=not by_dimension)
    sys.stdout.write("\n".join([heading(environment, null), "", about, "", *measured.lines]).rstrip() + "\n")
    for line in unstable(measured.timings):
        say(line)
    if args.plots:
        for path in drawing.draw(measured.costs, subject, args.plots):
            say(f"drew {path}")
    return 0


def _subject(args: argparse.Namespace, folder: Path) -> Subject:
    if args.bundle is None:
        return fitted(
            folder,
            fit_options(args),
            images=args.images,
            test=args.test,
            dimensions=args.dims or (DIMENSION,),
            precisions=args.precisions or ("fp32",),
            engines=args.backends,
            say=say,
        )
    if args.images is None:
        raise InputError("with BUNDLE bench latency needs --images, a folder of frames")
    # None of them has a default here, so that each that has a value was asked for.
    shapes = {"dims": args.dims, "test": args.test, **chosen(FitOptions, args), **chosen(StatisticsOptions, args)}
    words = ", ".join(f"--{name.replace('_', '-')}" for name, value in shapes.items() if value is not None)
    if words:
        raise InputError(f"BUNDLE together with {words}: nothing is fitted then; expected one without the other")
    return from_bundle(args.bundle, args.images, precisions=args.precisions, engines=args.backends, kind=args.map)
