"""Measures the accuracy of the real path over several splits: fit, bundle, detector, score.

Each split draws its own good images to fit and to calibrate on and its own projection. Solar cells that a split leaves
over are tested; a folder in the MVTec layout keeps its own test images. Where several precisions or types of factors
are measured, all see the same images, and each is compared with everything in fp32.

  flawline bench accuracy --data elpv-mono --dims 32,100 --fit-images 300 --calibration-images 60
  flawline bench accuracy --data elpv-mono --precisions fp32,int8 --factor-types fp16,int8
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import get_args

from flawline.benchmarks import accuracy
from flawline.benchmarks.accuracy import Refusal
from flawline.benchmarks.accuracy_means import METRICS, MeanAccuracy, summarise
from flawline.benchmarks.commands.options import (
    add_data,
    add_output,
    add_precisions,
    add_threads,
    one_of,
    positive,
    say,
    several,
)
from flawline.benchmarks.datasets import open_dataset
from flawline.benchmarks.environment import describe
from flawline.benchmarks.record import detector_facts, flat, heading, result
from flawline.benchmarks.tables import table, write_json
from flawline.calibration.statistics import FactorType
from flawline.export.commands.options import add_model, add_network, fit_options
from flawline.runtime.bundle import PadimManifest
from flawline.runtime.precisions import Precision

MEANING = {
    "image_auroc": "area under the ROC over test images; score = maximum of the smoothed anomaly map",
    "average_precision": "over test images, defective ones as positives",
    "pixel_auroc": "area under the ROC over all pixels; maps upsampled to the image, bilinear; empty masks left out",
    "aupro": "per-region overlap integrated to a false positive rate of 0.3, divided by 0.3",
    "false_rejects": "good test images above the bundle's threshold, which was set for settings.false_reject_rate",
    "misses": "defective test images below it",
    "differences": "to fp32 with fp32 factors, on the same images: mean over splits, and the one farthest from zero",
    "refused": "variants that the parity gate did not let pass, by split",
}
NAMES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench accuracy`."""
    add_data(parser, required=True)
    add_network(parser)
    parser.add_argument("--dims", metavar="D,...", type=several(positive), default=(100,), help="default: 100")
    parser.add_argument(
        "--fit-images",
        metavar="N",
        type=positive,
        help="default: 300 solar cells, or all of a training folder that are not held out",
    )
    parser.add_argument(
        "--calibration-images",
        metavar="N",
        type=positive,
        default=60,
        help="good images held out for the threshold, on top (default: %(default)s)",
    )
    parser.add_argument("--splits", metavar="N", type=positive, default=5, help="default: %(default)s")
    add_precisions(parser, "fp32")
    parser.add_argument(
        "--factor-types",
        metavar="F,...",
        type=several(one_of(get_args(FactorType))),
        help=f"of the stored factors, several: {', '.join(get_args(FactorType))} (default: that of --factors)",
    )
    add_model(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench accuracy`."""
    environment = describe()
    dataset = open_dataset(args.data)
    precisions: Sequence[Precision] = args.precisions or ("fp32",)
    factor_types: Sequence[FactorType] = args.factor_types or (args.factors,)
    measured, refused, manifest = accuracy.measure(
        dataset,
        fit_options(args),
        accuracy.variants_of(args.dims, precisions, factor_types),
        fit_images=args.fit_images,
        calibration_images=args.calibration_images,
        splits=args.splits,
        say=say,
    )
    means = summarise(measured)
    if args.json:
        settings = {
            "data": dataset.name,
            "dimensions": list(args.dims),
            "precisions": list(precisions),
            "factor_types": list(factor_types),
            "splits": args.splits,
            "threads": args.threads,
            "false_reject_rate": manifest.threshold.false_reject_rate,
            "last_detector": detector_facts(manifest),
        }
        results = {
            "means": [flat(one, "variant") for one in means],
            "splits": [flat(one, "variant") for one in measured],
            "refused": [flat(one, "variant") for one in refused],
        }
        write_json(args.json, result("accuracy", environment, settings=settings, meaning=MEANING, results=results))
    first = measured[0]
    lines = [
        heading(environment),
        "",
        f"{dataset.name}: {first.fit_images} good images fitted, {first.calibration_images} on top for the threshold; "
        f"tested on {first.test_good} good and {first.test_defective} defective ones"
        + (f"; {dataset.terms}" if dataset.terms else ""),
        _settings(manifest),
        "",
        _table(means),
        f"false rejects: share of good test images above the threshold, which was set for at most "
        f"{manifest.threshold.false_reject_rate:.1%}",
        "",
        *_differences(means),
        *_refusals(refused),
    ]
    sys.stdout.write("\n".join(lines))
    return 1 if refused else 0


def _settings(manifest: PadimManifest) -> str:
    gaussian, network = manifest.gaussian, manifest.network
    epsilon = f"{gaussian.epsilon:g}" + (" of the mean variance" if gaussian.epsilon_relative else " absolute")
    return (
        f"{network.name} ({network.weights.origin}) at {manifest.input.height} x {manifest.input.width}, "
        f"{manifest.projection.kind} projection of {manifest.projection.input_dimension} channels, "
        f"map {manifest.map.height} x {manifest.map.width}, epsilon {epsilon}, sigma {manifest.map.sigma:g} map px"
    )


def _table(means: list[MeanAccuracy]) -> str:
    heads = ["d", "network", "factors", "splits", "image AUROC", "std", "AP", "false rejects", "misses"]
    rows = [
        [
            one.variant.dimension,
            one.variant.precision,
            one.variant.factors,
            one.splits,
            f"{one.image_auroc:.4f}",
            "" if one.image_auroc_std is None else f"{one.image_auroc_std:.4f}",
            f"{one.average_precision:.4f}",
            f"{one.false_reject_share:.1%}",
            f"{one.miss_share:.1%}",
        ]
        for one in means
    ]
    if means[0].pixel_auroc is not None:
        heads += ["pixel AUROC", "AUPRO"]
        for row, one in zip(rows, means, strict=True):
            row += [f"{one.pixel_auroc:.4f}", f"{one.aupro:.4f}"]
    return table(heads, rows)


def _differences(means: Sequence[MeanAccuracy]) -> Iterator[str]:
    compared = [one for one in means if one.differences]
    if not compared:
        return
    metrics = [metric for metric in METRICS if metric in compared[0].differences]
    heads = ["d", "network", "factors"]
    for metric in metrics:
        heads += [NAMES[metric], "largest"]
    rows: list[list[object]] = []
    for one in compared:
        variant = one.variant
        rows.append([variant.dimension, variant.precision, variant.factors])
        for found in (one.differences[metric] for metric in metrics):
            rows[-1] += [f"{found.mean:+.5f}", f"{found.largest:+.5f}"]
    yield "difference to fp32 with fp32 factors on the same images: mean over splits, and the largest of a split"
    yield table(heads, rows)
    yield ""


def _refusals(refused: Sequence[Refusal]) -> Iterator[str]:
    for one in refused:
        yield f"refused on split {one.seed}: {one.variant}: {one.reason}"
    if refused:
        yield ""
