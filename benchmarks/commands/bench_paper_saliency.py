"""Repeats the experiment of Feeney and Hughes, "Evaluating the Use of Reconstruction Error for Novelty Localization", 2021.

A convolutional autoencoder learns to reconstruct the digits 0 to 4 of MNIST. On the test set, whose digits 5 to 9 are novel to
it, maps of the error are compared with maps of the saliency, by how many of their largest pixels they have in common, how far
those that they have not are from each other, and their mean squared difference. Both are made by the exported graph.

  flawline bench paper saliency --data mnist.npz
  flawline bench paper saliency --data mnist.npz --seeds 3 --pictures pictures/ --json saliency.json
  flawline bench paper saliency --data mnist.npz --full
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.benchmarks.commands.options import add_output, positive, say
from flawline.benchmarks.environment import Environment, describe
from flawline.benchmarks.paper import saliency_claims, saliency_text
from flawline.benchmarks.paper.agreement_picture import picture_of_agreement
from flawline.benchmarks.paper.map_picture import picture_of_maps
from flawline.benchmarks.paper.mnist import read_mnist
from flawline.benchmarks.paper.saliency_comparison import SeedResult
from flawline.benchmarks.paper.saliency_options import COUNTS, FULL, StudyOptions
from flawline.benchmarks.record import heading, result
from flawline.benchmarks.tables import write_json
from flawline.export.commands.options import chosen
from flawline.runtime.errors import InputError
from flawline.runtime.files import make_folder

if TYPE_CHECKING:
    from flawline.benchmarks.paper.saliency_study import Examples

MEANING = {
    "epochs": "mean squared error of training and of validation digits, pixels from 0 to 1, after each epoch",
    "mean_squared_error": "of the reconstructions of test digits, pixels from 0 to 1",
    "frequencies": "by K: share of the images with 0 to K of the K largest pixels of both maps in common (figure 2)",
    "majority": "by K: share of the images with more than half of them in common (table 1)",
    "distance_px": "by K: largest distance of one of the saliency's K largest pixels to the nearest of the error's",
    "saliency": "mean squared difference of saliency and error, each divided by its maximum",
    "squared_saliency": "the same of the squared saliency and error",
    "gain": "saliency less squared_saliency, image by image",
    "through_network": "norm of n / 2 saliency - |r| over the norm of r, r the residual: at least so much does the network "
    "add to the gradient. If it added nothing, all pixels would be in the same order",
    "mean, standard_error": "over images",
    "claims": "differences, as the paper reports them and ours by seed: novel less normal, squared saliency less saliency; "
    "a direction is told beyond two standard errors, alike for all seeds",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench paper saliency`. None has a default, which --full changes."""
    default = StudyOptions()
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        required=True,
        help="MNIST: mnist.npz with x_train, y_train, x_test and y_test, or a folder with it",
    )
    parser.add_argument(
        "--epochs", metavar="N", type=positive, help=f"of training, at most (default: {default.epochs})"
    )
    parser.add_argument(
        "--train-images", metavar="N", type=positive, help="normal digits to train on, drawn at random (default: all)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, help=f"of weights, drawing, split and order (default: {default.seed})"
    )
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=positive,
        help=f"trainings, each with the next seed (default: {default.seeds})",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"all normal digits, until the loss no longer falls or {FULL.epochs} epochs, {FULL.seeds} seeds, unless told "
        "otherwise: hours",
    )
    parser.add_argument("--threads", metavar="N", type=positive, help="default: all cores")
    parser.add_argument(
        "--pictures", metavar="DIR", type=Path, help="draw the paper's figures 1 and 2 as PNG files into this folder"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench paper saliency`."""
    options = study_options(args)
    if args.json and (args.json.is_dir() or not args.json.parent.is_dir()):
        raise InputError(f"--json {args.json}: expected the name of a file, in a folder that exists")
    train_digits, test_digits = read_mnist(args.data)
    if args.pictures:
        make_folder(args.pictures)
    environment = describe()
    # Needs torch, which a `--help` does not.
    from flawline.benchmarks.paper import saliency_study

    results: list[SeedResult] = []
    for one, examples in saliency_study.run(options, train_digits, test_digits, say):
        results.append(one)
        if args.pictures:
            _draw(args.pictures, one, examples)
        if args.json:
            write_json(args.json, _record(options, results, environment))
    sys.stdout.write(f"{heading(environment)}\n\n{saliency_text.describe(results)}")
    return 0


def study_options(args: argparse.Namespace) -> StudyOptions:
    """What is asked: options that were given, and for the rest the default or the full budget.

    Raises:
        InputError: A value out of its range.
    """
    return replace(FULL if args.full else StudyOptions(), **chosen(StudyOptions, args))


def _draw(folder: Path, one: SeedResult, examples: "Examples") -> None:
    maps = examples.maps
    picture_of_maps(
        folder / f"maps-seed-{one.seed}.png",
        {
            "input": examples.images,
            "reconstruction": maps.reconstruction.round().clip(0, 255).astype("uint8"),
            "saliency": maps.saliency,
            "squared saliency": maps.saliency**2,
            "error": maps.error,
        },
        examples.groups,
        title="An autoencoder of the digits 0 to 4",
    )
    largest = max(COUNTS)
    picture_of_agreement(
        folder / f"agreement-seed-{one.seed}.png",
        {name: group.frequencies[largest] for name, group in one.groups.items()},
        title=f"Largest {largest} pixels of saliency and error",
    )


def _record(options: StudyOptions, results: list[SeedResult], environment: Environment) -> dict[str, object]:
    found = saliency_claims.claims(results)
    paper = {
        "majority": saliency_claims.PAPER_MAJORITY,
        "most_frequent_of_10": saliency_claims.PAPER_MOST_FREQUENT,
        "distance_px": saliency_claims.PAPER_DISTANCE_PX,
        "saliency": saliency_claims.PAPER_SALIENCY,
        "squared_saliency": saliency_claims.PAPER_SQUARED_SALIENCY,
    }
    return result(
        "paper saliency",
        environment,
        settings={"data": "MNIST"} | asdict(options) | {"training": asdict(options.training(options.seed))},
        meaning=MEANING,
        results={
            "paper": paper,
            "seeds": [asdict(one) for one in results],
            "claims": [asdict(one) | {"direction": one.verdict} for one in found],
        },
    )
