"""Measures a bundle on labelled images.

DATASET_DIR is in the MVTec layout: test/good, test/KIND and, if flaws are marked, ground_truth/KIND/NAME_mask.png.
Prints image AUROC and average precision; with masks also pixel AUROC and AUPRO (to a false positive rate of 0.3); and
what the bundle's threshold makes of each kind of image.

For a classifier the folders are test/CLASS with images of the classes of the bundle, and test/OTHER, by any other name, with
images of none of them; or DATASET_DIR is an .npz file with x_test and y_test, or a folder with IDX files, whose labels are names of
classes or of what is of none. Prints accuracy and macro F1 of the classes, over all of their images and over those that are accepted,
and how well the others are told from them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flawline.benchmarks.classification import (
    Classified,
    ClassifierEvaluation,
    classify_items,
    evaluate_classifier,
)
from flawline.benchmarks.classification_items import read_items
from flawline.benchmarks.classification_text import classifier_text
from flawline.benchmarks.datasets import read_mvtec
from flawline.benchmarks.evaluation import Evaluation, Scored, evaluate, score_items
from flawline.benchmarks.tables import dumps, table
from flawline.runtime import Detector
from flawline.runtime.bundle import ClassifierManifest, ManifestOfKinds, PadimManifest, ReconstructionManifest
from flawline.runtime.commands.options import add_engine, add_map
from flawline.runtime.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline evaluate`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that `flawline fit` wrote")
    parser.add_argument(
        "dataset",
        type=Path,
        metavar="DATASET_DIR",
        help="folder with test/good and test/KIND; for a classifier with test/CLASS or IDX files, or an .npz file",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every image's score")
    add_engine(parser)
    add_map(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline evaluate`."""
    with Detector.open(
        args.bundle, backend=args.backend, precision=args.precision, threads=args.threads, map=args.map
    ) as detector:
        manifest = detector.bundle.manifest
        if isinstance(manifest, ClassifierManifest):
            text = _of_classifier(detector, manifest, args)
        else:
            items = read_mvtec(args.dataset).test
            scored = list(progress(score_items(detector, items), total=len(items), label="scoring"))
            evaluation = evaluate(scored, detector.threshold)
            text = _json(detector, asdict(evaluation), scored) if args.json else _text(manifest, evaluation)
    sys.stdout.write(text)
    return 0


def _of_classifier(detector: Detector, manifest: ClassifierManifest, args: argparse.Namespace) -> str:
    classes = manifest.classifier.classes
    items = read_items(args.dataset, classes)
    classified = list(progress(classify_items(detector, items), total=len(items), label="scoring"))
    found = evaluate_classifier(classified, classes, detector.threshold, manifest.kind)
    return _json(detector, _facts(found), classified) if args.json else classifier_text(manifest, found)


def _facts(found: ClassifierEvaluation) -> dict[str, Any]:
    """What is measured of every detector under the names that it has there, and the rest under `classification`."""
    facts, novelty = asdict(found), found.novelty
    return {
        "images": found.images,
        "defective": found.others,
        "image_auroc": None if novelty is None else novelty.image_auroc,
        "average_precision": None if novelty is None else novelty.average_precision,
        "pixel_auroc": None,
        "aupro": None,
        "empty_masks": 0,
        "threshold": found.threshold,
        "false_rejects": found.false_rejects,
        "misses": found.misses,
        "kinds": facts["kinds"],
        "classification": {
            "all": facts["every"],
            "accepted": facts["accepted"],
            "confusions": facts["confusions"],
            "correct": found.correct,
            "absent": found.absent,
            "beyond_every_class": facts["beyond"],
            "out_of_distribution": None
            if novelty is None
            else {"prevalence": novelty.prevalence, "f1": novelty.f1, "f1_of_all": novelty.f1_of_all},
        },
    }


def _json(detector: Detector, result: dict[str, Any], scored: Sequence[Scored | Classified]) -> str:
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
        | (
            {"class": one.label, "probability": one.probability, "nearest": one.nearest}
            if isinstance(one, Classified)
            else {}
        )
        for one in scored
    ]
    return dumps(result)


def _about(manifest: PadimManifest | ReconstructionManifest) -> str:
    size = f"map {manifest.map.height} x {manifest.map.width}"
    if isinstance(manifest, PadimManifest):
        projection, gaussian = manifest.projection, manifest.gaussian
        epsilon = f"{gaussian.epsilon:g}" + (" of the mean variance" if gaussian.epsilon_relative else "")
        return (
            f"{manifest.network.name}, {projection.kind} projection to {projection.dimension}, "
            f"{size}, epsilon {epsilon}, sigma {manifest.map.sigma:g} map px"
        )
    fact = manifest.reconstruction
    sigma = f", sigma {manifest.map.sigma:g} px" if fact.map == "pse" else ""
    return f"{manifest.network.name}, reconstruction from {fact.title}, {size}, {fact.map}{sigma}"


def _text(manifest: PadimManifest | ReconstructionManifest, evaluation: Evaluation) -> str:
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
