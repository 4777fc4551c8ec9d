"""Measures a bundle on labelled images.

DATASET_DIR is in the MVTec layout: test/good, test/KIND and, if flaws are marked, ground_truth/KIND/NAME_mask.png.
Prints image AUROC and average precision; with masks also pixel AUROC and AUPRO (to a false positive rate of 0.3); and
what the bundle's threshold makes of each kind of image.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flawline.benchmarks.datasets import read_mvtec
from flawline.benchmarks.evaluation import Evaluation, Scored, evaluate, score_items
from flawline.benchmarks.tables import dumps, table
from flawline.runtime import Detector
from flawline.runtime.bundle import AnyManifest, ClassifierManifest, ManifestOfKinds, PadimManifest
from flawline.runtime.commands.options import add_engine, add_map
from flawline.runtime.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline evaluate`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that `flawline fit` wrote")
    parser.add_argument("dataset", type=Path, metavar="DATASET_DIR", help="folder with test/good and test/KIND")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every image's score")
    add_engine(parser)
    add_map(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline evaluate`."""
    items = read_mvtec(args.dataset).test
    with Detector.open(
        args.bundle, backend=args.backend, precision=args.precision, threads=args.threads, map=args.map
    ) as detector:
        scored = list(progress(score_items(detector, items), total=len(items), label="scoring"))
        manifest = detector.bundle.manifest
        evaluation = evaluate(scored, detector.threshold)
        text = _json(detector, evaluation, scored) if args.json else _text(manifest, evaluation)
    sys.stdout.write(text)
    return 0


def _json(detector: Detector, evaluation: Evaluation, scored: list[Scored]) -> str:
    result: dict[str, Any] = asdict(evaluation)
    result["bundle_sha256"] = detector.bundle.hash
    result["backend"] = detector.backend
    manifest = detector.bundle.manifest
    result["precision"] = manifest.network.precision
    result["map"] = manifest.kind if isinstance(manifest, ManifestOfKinds) else None
    result["results"] = [
        {
            "path": str(one.item.path),
            "kind": one.item.kind,
            "score": one.score,
            "p_value": one.p_value,
            "verdict": "reject" if one.rejected else "good",
        }
        for one in scored
    ]
    return dumps(result)


def _about(manifest: AnyManifest) -> str:
    size = f"map {manifest.map.height} x {manifest.map.width}"
    if isinstance(manifest, PadimManifest):
        projection, gaussian = manifest.projection, manifest.gaussian
        epsilon = f"{gaussian.epsilon:g}" + (" of the mean variance" if gaussian.epsilon_relative else "")
        return (
            f"{manifest.network.name}, {projection.kind} projection to {projection.dimension}, "
            f"{size}, epsilon {epsilon}, sigma {manifest.map.sigma:g} map px"
        )
    if isinstance(manifest, ClassifierManifest):
        return f"{manifest.network.name}, {len(manifest.classifier.classes)} classes, {manifest.kind}"
    fact = manifest.reconstruction
    sigma = f", sigma {manifest.map.sigma:g} px" if fact.map == "pse" else ""
    return f"{manifest.network.name}, reconstruction from {fact.title}, {size}, {fact.map}{sigma}"


def _text(manifest: AnyManifest, evaluation: Evaluation) -> str:
    good = evaluation.images - evaluation.defective
    lines = [
        _about(manifest),
        f"{evaluation.images} images: {good} good, {evaluation.defective} defective",
        "",
        f"image AUROC              {evaluation.image_auroc:.4f}",
        f"image average precision  {evaluation.average_precision:.4f}",
    ]
    if evaluation.pixel_auroc is not None and evaluation.aupro is not None:
        lines.append(f"pixel AUROC              {evaluation.pixel_auroc:.4f}")
        lines.append(f"AUPRO to FPR 0.3         {evaluation.aupro:.4f}")
    if evaluation.empty_masks:
        lines.append(f"empty masks              {evaluation.empty_masks} (these images count, their pixels do not)")
    lines.append("")
    lines.append(
        f"threshold {evaluation.threshold:.6g}: {evaluation.false_rejects} of {good} good images rejected "
        f"({evaluation.false_rejects / good:.1%}; {manifest.threshold.false_reject_rate:.1%} was asked for), "
        f"{evaluation.misses} of {evaluation.defective} defective ones passed"
    )
    if manifest.network.weights.random:
        lines.append("the network has random weights: it measures time, these accuracies mean nothing")
    rows = [
        (
            kind.kind,
            kind.images,
            kind.rejected,
            f"{kind.median_score:.4g}",
            "" if kind.image_auroc is None else f"{kind.image_auroc:.4f}",
        )
        for kind in evaluation.kinds
    ]
    lines += ["", table(("kind", "images", "rejected", "median score", "AUROC against good"), rows)]
    return "\n".join(lines) + "\n"
