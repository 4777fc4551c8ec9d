"""Measures the accuracy of the real path over several splits: fit, bundle, detector, score.

Each split draws its own good images to fit and to calibrate on and its own projection. Solar cells that a split leaves
over are tested; a folder in the MVTec layout keeps its own test images.

  flawline bench accuracy --data elpv-mono --dims 32,100 --fit-images 300 --calibration-images 60
"""

import argparse
import sys
from dataclasses import asdict

from flawline.benchmarks import accuracy
from flawline.benchmarks.accuracy import MeanAccuracy
from flawline.benchmarks.commands.options import add_data, add_output, add_threads, positive, say, several
from flawline.benchmarks.datasets import open_dataset
from flawline.benchmarks.environment import describe
from flawline.benchmarks.record import detector_facts, heading, result
from flawline.benchmarks.tables import table, write_json
from flawline.export.commands.options import add_model, add_network, fit_options
from flawline.runtime.bundle import Manifest

MEANING = {
    "image_auroc": "area under the ROC over test images; score = maximum of the smoothed anomaly map",
    "average_precision": "over test images, defective ones as positives",
    "pixel_auroc": "area under the ROC over all pixels; maps upsampled to the image, bilinear; empty masks left out",
    "aupro": "per-region overlap integrated to a false positive rate of 0.3, divided by 0.3",
    "false_rejects": "good test images above the bundle's threshold, which was set for settings.false_reject_rate",
    "misses": "defective test images below it",
}


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
    add_model(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench accuracy`."""
    environment = describe()
    dataset = open_dataset(args.data)
    measured, manifest = accuracy.measure(
        dataset,
        fit_options(args),
        dimensions=args.dims,
        fit_images=args.fit_images,
        calibration_images=args.calibration_images,
        splits=args.splits,
        say=say,
    )
    means = accuracy.summarise(measured)
    if args.json:
        settings = {
            "data": dataset.name,
            "dimensions": list(args.dims),
            "splits": args.splits,
            "threads": args.threads,
            "false_reject_rate": manifest.threshold.false_reject_rate,
            "last_detector": detector_facts(manifest),
        }
        results = {"means": [asdict(one) for one in means], "splits": [asdict(one) for one in measured]}
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
    ]
    sys.stdout.write("\n".join(lines))
    return 0


def _settings(manifest: Manifest) -> str:
    gaussian, network = manifest.gaussian, manifest.network
    epsilon = f"{gaussian.epsilon:g}" + (" of the mean variance" if gaussian.epsilon_relative else " absolute")
    return (
        f"{network.name} ({network.weights.origin}) at {manifest.input.height} x {manifest.input.width}, "
        f"{manifest.projection.kind} projection of {manifest.projection.input_dimension} channels, "
        f"map {manifest.map.height} x {manifest.map.width}, epsilon {epsilon}, sigma {manifest.map.sigma:g} map px, "
        f"{gaussian.factors} factors"
    )


def _table(means: list[MeanAccuracy]) -> str:
    heads = ["d", "splits", "image AUROC", "std", "AP", "false rejects", "misses"]
    rows = [
        [
            one.dimension,
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
