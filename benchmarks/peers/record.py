"""The comparison for JSON, and the words that repeat it."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flawline.benchmarks.environment import Environment
from flawline.benchmarks.peers.cases import Failure
from flawline.benchmarks.peers.comparison import Measured, Settings
from flawline.benchmarks.peers.frames import Frames
from flawline.benchmarks.peers.ours import FACTOR_TYPES
from flawline.benchmarks.peers.ratios import Ratio
from flawline.benchmarks.peers.theirs import About
from flawline.benchmarks.record import detector_facts, result
from flawline.runtime.bundle import read

MEANING = {
    "argv": "every option that changes what is measured, defaults included; files and folders by name alone",
    "latency": "from a uint8 frame in memory to a verdict, in the worker: preprocessing, network, distances, score",
    "cpu_ns": "processor time per frame of all threads of the worker, until they have come to rest; median over turns",
    "peak_memory_bytes": "VmHWM of the worker, libraries included",
    "deployed_bytes": "files that a device needs besides libraries; of a bundle, those of the case's precision",
    "image_auroc": "area under the ROC over the labelled frames",
    "distinct_scores": "different scores among the scored frames; 1 says nothing about any of them",
    "rejected": "frames above the case's own threshold, which each party sets in its own way",
    "ratios": "peer over ours, same threads, same run; above 1 the peer takes more",
}


def argv(args: argparse.Namespace) -> list[str]:
    """The words that repeat a run of `flawline bench peers`; where things are kept is left to whoever repeats it.

    Args:
        args: As parsed.
    """
    factor_types = () if args.bundles else args.factor_types or FACTOR_TYPES
    chosen = {
        "--images": None if args.images is None else args.images.resolve().name,
        "--test": None if args.test is None else Path(args.test).resolve().name,
        "--weights": args.weights.name,
        "--dim": args.dimension,
        "--fit-images": args.fit_images,
        "--test-images": args.test_images,
        "--threads": ",".join(map(str, args.thread_counts)),
        "--runs": args.runs,
        "--precisions": ",".join(f"{precision}@{engine}" for precision, engine in args.executions),
        "--factors": ",".join(factor_types) or None,
        "--peers": ",".join(args.peers),
    }
    words = [word for name, value in chosen.items() if value is not None for word in (name, str(value))]
    bundles = [word for path in args.bundles or () for word in ("--bundle", path.resolve().name)]
    return ["flawline", "bench", "peers", *words, *bundles]


def record(
    args: argparse.Namespace,
    environment: Environment,
    bundles: Sequence[Path],
    frames: Frames,
    settings: Settings,
    about: Mapping[str, About],
    measured: Sequence[Measured],
    found: Sequence[Ratio],
    failures: Sequence[Failure],
) -> dict[str, Any]:
    """One object for JSON.

    Args:
        args: As parsed.
        environment: Before the comparison.
        bundles: Ours.
        frames: What was scored.
        settings: How cases took turns.
        about: The peers, by name.
        measured: Every case with every number of threads.
        found: Ratios among them.
        failures: What could not be measured.
    """
    opened = [read(path) for path in bundles]
    chosen = {
        "argv": argv(args),
        "data": Path(args.test or args.images).resolve().name,
        "weights": args.weights.name,
        "dimension": args.dimension,
        "frame_px": [frames.height, frames.width],
        "fit_images": frames.fit_images,
        "most_test_images": args.test_images,
        "frames": frames.count,
        "threads": list(args.thread_counts),
        "alternation": asdict(settings),
        "bundles": [{"sha256": one.hash, "detector": detector_facts(one.manifest)} for one in opened],
        "peers": {name: asdict(peer) for name, peer in about.items()},
    }
    results = {
        "cases": [_facts(one) for one in measured],
        "ratios": [asdict(one) for one in found],
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
        "factors": case.factors,
        "deployed_bytes": case.deployed_bytes,
        **{name: value for name, value in asdict(one).items() if name != "case"},
    }
