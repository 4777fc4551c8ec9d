"""Compares Flawline with other packages that offer PaDiM: time, processor time, memory, files and accuracy.

Each peer gets a virtual environment of its own from the package index, and is fitted on the same images with the same
network (ResNet-18, layers 1 to 3), the same weights and the same dimension. Then every way to run it and every way to
run ours stay warm in a process each, and score the same frames in alternation.

  flawline bench peers --test DIR --weights resnet18.npz
  flawline bench peers --test elpv-mono --weights resnet18.pth --threads 1 --json peers.json
  flawline bench peers --images good/ --weights resnet18.pth --precisions fp32,int8,fp32@openvino
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from flawline.benchmarks.commands.options import add_output, positive, say, several
from flawline.benchmarks.datasets import SHARED_FIT_IMAGES, Item, open_dataset
from flawline.benchmarks.environment import Environment, describe
from flawline.benchmarks.peers import environments, text
from flawline.benchmarks.peers.cases import Case, Failure, Way, null_case, read_offers
from flawline.benchmarks.peers.comparison import Measured, Settings, compare
from flawline.benchmarks.peers.environments import PEERS, PeerError
from flawline.benchmarks.peers.frames import Frames, write_frames
from flawline.benchmarks.peers.ours import Ours, fit_ours, from_bundles
from flawline.benchmarks.peers.ratios import ratios
from flawline.benchmarks.record import detector_facts, heading, result, unstable
from flawline.benchmarks.tables import write_json
from flawline.calibration.statistics import FactorType, StatisticsOptions
from flawline.export.options import FitOptions
from flawline.runtime.bundle import read
from flawline.runtime.errors import InputError
from flawline.runtime.files import make_folder
from flawline.runtime.images import list_images
from flawline.runtime.precisions import ENGINES, PRECISIONS

IMAGE_SIZE, MAP_STRIDE = 224, 4
BACKBONE = "resnet18"
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
MEANING = {
    "latency": "from a uint8 frame in memory to a verdict, in the worker: preprocessing, network, distances, score",
    "cpu_ns": "processor time per frame of all threads of the worker, until they have come to rest; median over turns",
    "peak_memory_bytes": "VmHWM of the worker, libraries included",
    "deployed_bytes": "files that a device needs besides libraries",
    "image_auroc": "area under the ROC over the labelled frames",
    "distinct_scores": "different scores among the scored frames; 1 says nothing about any of them",
    "rejected": "frames above the case's own threshold, which each party sets in its own way",
    "ratios": "peer over ours, same threads, same run; above 1 the peer takes more",
}


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
        dest="ways",
        metavar="NAME[@ENGINE],...",
        type=several(_way),
        default=(("fp32", "onnxruntime"),),
        help=f"ours, of {', '.join(PRECISIONS)}; each in the engine it is made for unless one is named (default: fp32)",
    )
    parser.add_argument(
        "--peers", metavar="NAME,...", type=several(_peer), default=tuple(PEERS), help=f"default: {','.join(PEERS)}"
    )
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help="where the peers' environments are kept; default: user cache"
    )
    parser.add_argument(
        "--factors",
        choices=get_args(FactorType),
        default=StatisticsOptions.factors,
        help="stored factors of ours (default: %(default)s)",
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
    with _work_folder(args.work) as work:
        fit_images, test = _choose(args)
        environment = describe()
        installed, failures = _install(args)
        frames = write_frames(fit_images, test, work / "frames", (IMAGE_SIZE, IMAGE_SIZE))
        ours = _ours(args, frames, work)
        failures += ours.failures
        theirs, offered = _fit_peers(args, installed, frames, work, environment, failures)
        settings = Settings(runs=args.runs)
        measured, failed = compare(
            [*ours.cases, *theirs, null_case()],
            frames,
            settings,
            thread_counts=args.thread_counts,
            folder=work,
            say=say,
        )
        failures += failed
        failures = [Failure(one.name, one.reason.replace(str(work), "WORK")) for one in failures]
        record = _record(args, environment, ours.bundles, frames, settings, offered, measured, failures)
    if args.json:
        write_json(args.json, record)
    found = ratios(measured)
    lines = [heading(environment), *_versions(offered), "", *text.lines(measured, found, failures, frames)]
    sys.stdout.write("\n".join(lines) + "\n")
    named = {f"{one.case.name or 'null case'}, threads {one.threads}": one.latency for one in measured}
    for line in unstable(named):
        say(line)
    return 1 if ours.refused else 0


def _way(word: str) -> Way:
    name, at, engine = word.partition("@")
    for precision, engines in ENGINES.items():
        if precision == name and (not at or engine in engines):
            return precision, engine or engines[0]
    known = ", ".join(f"{precision}@{one}" for precision, engines in ENGINES.items() for one in engines)
    raise argparse.ArgumentTypeError(f"'{word}'; expected one of {known}, or a precision alone")


def _peer(word: str) -> str:
    if word not in PEERS:
        raise argparse.ArgumentTypeError(f"'{word}'; expected some of {', '.join(PEERS)}")
    return word


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
        return list_images(args.images)[: args.fit_images], dataset.test
    split = dataset.split(min(args.fit_images, len(dataset.good)), 0, seed=0)
    return list(split.fit), split.test


def _install(args: argparse.Namespace) -> tuple[dict[str, Path], list[Failure]]:
    """The peers' interpreters, and those that could not be had.

    Raises:
        InputError: There is none.
    """
    folder = args.environments or environments.default_folder()
    options = ["--extra-index-url", args.torch_index] if args.torch_index else []
    installed, failures = {}, []
    for name in args.peers:
        try:
            installed[name] = environments.provide(PEERS[name], folder, index_options=options, say=say)
        except PeerError as error:
            failures.append(Failure(name, str(error)))
    if not installed:
        raise InputError(
            f"no peer could be installed: {failures[0].reason}; expected a package index within reach, "
            "or environments made before in --environments"
        )
    return installed, failures


def _ours(args: argparse.Namespace, frames: Frames, work: Path) -> Ours:
    if args.bundles:
        return from_bundles(args.bundles, args.ways)
    options = FitOptions(
        backbone=BACKBONE,
        weights=str(args.weights),
        image_size=IMAGE_SIZE,
        map_stride=MAP_STRIDE,
        dimension=args.dimension,
        statistics=StatisticsOptions(factors=args.factors),
    )
    return fit_ours(list_images(frames.fit), work, options, args.ways, say)


def _fit_peers(
    args: argparse.Namespace,
    installed: dict[str, Path],
    frames: Frames,
    work: Path,
    environment: Environment,
    failures: list[Failure],
) -> tuple[list[Case], dict[str, dict[str, Any]]]:
    """Their cases, and what is to be recorded of each peer. What fails joins the failures."""
    task: dict[str, object] = {
        "weights": str(args.weights.resolve()),
        "dimension": args.dimension,
        "height": frames.height,
        "width": frames.width,
        "fit": str(frames.fit),
        "good": None if frames.good is None else str(frames.good),
        "defective": None if frames.defective is None else str(frames.defective),
    }
    cases: list[Case] = []
    facts = {}
    for name, python in installed.items():
        say(f"{name}: fitting and exporting")
        try:
            offers = environments.fit(PEERS[name], python, task, work / name, threads=max(args.thread_counts))
        except PeerError as error:
            failures.append(Failure(name, str(error)))
            continue
        command = environments.worker_command(python, f"{name}_score")
        offered, refused, versions, notes = read_offers(
            offers, name, command, environments.worker_environment(work / name)
        )
        failures += refused
        cases += [case for case in offered if _runs_here(case, environment, failures)]
        facts[name] = {"versions": versions, "notes": notes, "licence": PEERS[name].licence}
    return cases, facts


def _runs_here(case: Case, environment: Environment, failures: list[Failure]) -> bool:
    if "bf16" not in case.precision or BF16_FLAGS.intersection(environment.cpu_flags):
        return True
    failures.append(Failure(case.name, "this processor has no bf16"))
    return False


def _record(
    args: argparse.Namespace,
    environment: Environment,
    bundles: Sequence[Path],
    frames: Frames,
    settings: Settings,
    peers: dict[str, dict[str, Any]],
    measured: Sequence[Measured],
    failures: Sequence[Failure],
) -> dict[str, Any]:
    opened = [read(path) for path in bundles]
    chosen = {
        "data": args.test if args.test in ("elpv-mono", "elpv-poly") else Path(args.test or args.images).resolve().name,
        "weights": args.weights.name,
        "dimension": args.dimension,
        "frame_px": [frames.height, frames.width],
        "fit_images": frames.fit_images,
        "frames": frames.count,
        "threads": list(args.thread_counts),
        "alternation": asdict(settings),
        "bundles": [{"sha256": one.hash, "detector": detector_facts(one.manifest)} for one in opened],
        "peers": peers,
    }
    results = {
        "cases": [_facts(one) for one in measured],
        "ratios": [asdict(one) for one in ratios(measured)],
        "failures": [asdict(one) for one in failures],
    }
    return result("peers", environment, settings=chosen, meaning=MEANING, results=results)


def _facts(one: Measured) -> dict[str, Any]:
    case = one.case
    return {
        "name": case.name,
        "party": case.party,
        "engine": case.engine,
        "precision": case.precision,
        "deployed_bytes": case.deployed_bytes,
        **{name: value for name, value in asdict(one).items() if name != "case"},
    }


def _versions(peers: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, facts in peers.items():
        yield f"{name} ({facts['licence']}): " + ", ".join(f"{key} {value}" for key, value in facts["versions"].items())
        yield from (f"  {note}" for note in facts["notes"])
