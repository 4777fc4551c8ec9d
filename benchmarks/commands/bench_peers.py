"""Compares Flawline with other packages that offer PaDiM: time, processor time, memory, files and accuracy.

Each peer gets a virtual environment of its own from the package index, and is fitted on the same images with the same
network (ResNet-18, layers 1 to 3), the same weights and the same dimension. Then every way to run it and every way to
run ours stay warm in a process each, and score the same frames in alternation.

  flawline bench peers --test DIR --weights resnet18.npz
  flawline bench peers --test elpv-mono --weights resnet18.pth --threads 1 --json peers.json
  flawline bench peers --images good/ --weights resnet18.pth --precisions fp32,int8,fp32@openvino --factors fp16,int8
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from flawline.benchmarks.commands.options import add_output, one_of, positive, say, several
from flawline.benchmarks.datasets import SHARED_FIT_IMAGES, Item, open_dataset
from flawline.benchmarks.environment import describe
from flawline.benchmarks.peers import text
from flawline.benchmarks.peers.cases import Execution, Failure, null_case
from flawline.benchmarks.peers.comparison import Settings, compare
from flawline.benchmarks.peers.environments import PEERS, default_folder
from flawline.benchmarks.peers.frames import Frames, thinned, write_frames
from flawline.benchmarks.peers.ours import FACTOR_TYPES, Ours, fit_ours, from_bundles
from flawline.benchmarks.peers.ratios import ratios
from flawline.benchmarks.peers.record import argv, record
from flawline.benchmarks.peers.theirs import fit_theirs, install
from flawline.benchmarks.record import heading
from flawline.benchmarks.tables import write_json
from flawline.calibration.statistics import FactorType
from flawline.export.options import FitOptions
from flawline.runtime.errors import InputError
from flawline.runtime.files import make_folder
from flawline.runtime.images import list_images
from flawline.runtime.precisions import ENGINES, PRECISIONS

IMAGE_SIZE, MAP_STRIDE = 224, 4
BACKBONE = "resnet18"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench peers`."""
    parser.add_argument(
        "--images", type=Path, metavar="GOOD_DIR", help="good images to fit on; default: those of --test"
    )
    parser.add_argument(
        "--test", metavar="SPEC", help="labelled images: elpv-mono, elpv-poly, or a folder in the MVTec layout"
    )
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="ResNet-18: .npz or .pth")
    parser.add_argument("--dim", dest="dimension", metavar="D", type=positive, default=100, help="default: %(default)s")
    parser.add_argument(
        "--fit-images", metavar="N", type=positive, default=SHARED_FIT_IMAGES, help="at most; default: %(default)s"
    )
    parser.add_argument(
        "--test-images",
        metavar="N",
        type=positive,
        help="labelled images, at most: good ones and each kind of flaw in their share (default: all)",
    )
    parser.add_argument(
        "--threads", dest="thread_counts", metavar="N,...", type=several(positive), default=(1, 2), help="default: 1,2"
    )
    parser.add_argument("--runs", metavar="N", type=positive, default=300, help="timed frames (default: %(default)s)")
    parser.add_argument(
        "--bundle",
        dest="bundles",
        type=Path,
        action="append",
        metavar="BUNDLE",
        help="ours, fitted on the same frames (see --work); may be repeated; default: fitted here",
    )
    parser.add_argument(
        "--precisions",
        dest="executions",
        metavar="NAME[@ENGINE],...",
        type=several(_execution),
        default=(("fp32", "onnxruntime"),),
        help=f"ours, of {', '.join(PRECISIONS)}; each in the engine it is made for unless one is named (default: fp32)",
    )
    parser.add_argument(
        "--factors",
        dest="factor_types",
        metavar="TYPE,...",
        type=several(one_of(get_args(FactorType))),
        help=f"of ours, of {', '.join(get_args(FactorType))}; each is a case of its own "
        f"(default: {','.join(FACTOR_TYPES)}, or as BUNDLE has them)",
    )
    parser.add_argument(
        "--peers",
        metavar="NAME,...",
        type=several(one_of(tuple(PEERS))),
        default=tuple(PEERS),
        help=f"default: {','.join(PEERS)}",
    )
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help="where the peers' environments are kept; default: user cache"
    )
    parser.add_argument("--torch-index", metavar="URL", help="further package index, for a CPU build of torch")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep frames, models and logs in this new folder")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench peers`."""
    if args.test is None and args.images is None:
        raise InputError("neither --test nor --images: expected labelled images, or good ones for time and size alone")
    if not args.weights.is_file():
        raise InputError(f"--weights {args.weights}: no such file; expected the weights of ResNet-18")
    if args.test is None and args.test_images is not None:
        raise InputError("--test-images without --test: there are no labelled images; expected both or neither")
    if args.bundles and args.factor_types:
        raise InputError("--bundle together with --factors: nothing is fitted then; expected one without the other")
    with _work_folder(args.work) as work:
        fit_images, test = _choose(args)
        environment = describe()
        index_options = ["--extra-index-url", args.torch_index] if args.torch_index else []
        folder = args.environments or default_folder()
        installed, missing = install(args.peers, folder, index_options=index_options, say=say)
        frames = write_frames(fit_images, test, work / "frames", (IMAGE_SIZE, IMAGE_SIZE))
        ours = _ours(args, frames, work)
        theirs = fit_theirs(
            installed,
            frames,
            work,
            weights=args.weights,
            dimension=args.dimension,
            threads=max(args.thread_counts),
            environment=environment,
            say=say,
        )
        settings = Settings(runs=args.runs)
        cases = [*ours.cases, *theirs.cases, null_case()]
        measured, failed = compare(cases, frames, settings, thread_counts=args.thread_counts, folder=work, say=say)
        found = ratios(measured)
        failures = [
            Failure(one.name, one.reason.replace(str(work), "WORK"))
            for one in (*missing, *ours.failures, *theirs.failures, *failed)
        ]
        written = record(args, environment, ours.bundles, frames, settings, theirs.about, measured, found, failures)
    if args.json:
        write_json(args.json, written)
    lines = [
        heading(environment),
        *text.parties(environment, theirs.about),
        f"to repeat: {shlex.join(argv(args))}",
        "",
        *text.lines(measured, found, failures, frames),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if ours.refused else 0


def _execution(word: str) -> Execution:
    name, at, engine = word.partition("@")
    for precision, engines in ENGINES.items():
        if precision == name and (not at or engine in engines):
            return precision, engine or engines[0]
    known = ", ".join(f"{precision}@{one}" for precision, engines in ENGINES.items() for one in engines)
    raise argparse.ArgumentTypeError(f"'{word}'; expected one of {known}, or a precision alone")


@contextmanager
def _work_folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="flawline-peers-") as folder:
            yield Path(folder)
        return
    if chosen.exists() and (not chosen.is_dir() or any(chosen.iterdir())):
        raise InputError(f"--work {chosen} is there already; expected a new or an empty folder")
    make_folder(chosen)
    yield chosen.resolve()


def _choose(args: argparse.Namespace) -> tuple[list[Path], Sequence[Item]]:
    """Images to fit on and labelled ones to score."""
    if args.test is None:
        return list_images(args.images)[: args.fit_images], ()
    dataset = open_dataset(args.test)
    if args.images is not None:
        fitted, test = list_images(args.images)[: args.fit_images], dataset.test
    else:
        split = dataset.split(min(args.fit_images, len(dataset.good)), 0, seed=0)
        fitted, test = list(split.fit), split.test
    return fitted, test if args.test_images is None else thinned(test, args.test_images)


def _ours(args: argparse.Namespace, frames: Frames, work: Path) -> Ours:
    if args.bundles:
        return from_bundles(args.bundles, args.executions)
    options = FitOptions(
        backbone=BACKBONE,
        weights=str(args.weights),
        image_size=IMAGE_SIZE,
        map_stride=MAP_STRIDE,
        dimension=args.dimension,
    )
    factor_types = args.factor_types or FACTOR_TYPES
    return fit_ours(list_images(frames.fit), work, options, args.executions, factor_types, say)
