"""Repeats the experiments of the paper on center loss and Mahalanobis distance, its claims and what was found side by side.

A classifier learns normal classes with cross-entropy plus lambda times the center loss. Images out of their distribution are
told by Mahalanobis distance, with a Gaussian and a threshold per class of deep features (semi-supervised), and by a second
head, which has seen others of them (supervised). MNIST against Fashion-MNIST, and the digits 1 to 9 against 0.

  flawline bench paper center-loss --data mnist.npz
  flawline bench paper center-loss --data mnist.npz --seeds 3 --pictures pictures/ --json center-loss.json
  flawline bench paper center-loss --data mnist.npz --kernel
  flawline bench paper center-loss --data mnist.npz --full --folder imagenet30/
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flawline.benchmarks.commands.options import add_output, positive, say, several
from flawline.benchmarks.environment import Environment, describe
from flawline.benchmarks.paper.center_loss_options import FULL, CenterLossStudy
from flawline.benchmarks.paper.mnist import Digits, read_mnist
from flawline.benchmarks.record import heading, result
from flawline.benchmarks.tables import write_json
from flawline.export.commands.options import chosen
from flawline.runtime.errors import InputError
from flawline.runtime.files import make_folder

if TYPE_CHECKING:
    from flawline.benchmarks.paper.center_loss_data import Experiment, Images
    from flawline.benchmarks.paper.center_loss_kernel import KernelStudy
    from flawline.benchmarks.paper.center_loss_study import Drawn, Outcome

DEBIAN_PACKAGE = "dataset-fashion-mnist"
MEANING = {
    "f1": "of classification: mean over the classes of their F1 scores, on normal test images",
    "f1_normal": "F1 score of the test with normal images as the positives, the paper's class 1",
    "f1_anomalous": "with those out of the distribution as the positives",
    "rejected": "share of the normal test images that are taken for anomalous",
    "missed": "share of the anomalous ones that are taken for normal",
    "semi_supervised": "anomalous if the Mahalanobis distance to each class exceeds the 97.5th percentile of its training images "
    "(equations 3 to 5); auroc by the smallest ratio of distance and threshold",
    "percentiles_auroc": "by one percentile of all classes, as the paper draws it: the smallest over the classes of the share of its "
    "training distances that are below the image's",
    "supervised": "anomalous if the second head's probability of being normal is below 0.5",
    "transfer": "the second head trained with one set of anomalies, tested on another",
    "epochs": "mean loss of training and of validation images after each, the center loss times lambda included",
    "norm_normal, norm_anomalous": "mean length of the deep features of test images",
    "image_ns": "of a call by batch, for the whole batch, projection included",
    "bandwidth_share": "median time of a plain read of the factors over that of a call",
    "claims": "the paper's number, ours by seed, and whether it is as in the paper with every seed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench paper center-loss`. None has a default, which --full changes."""
    default = CenterLossStudy()
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        required=True,
        help="MNIST: mnist.npz with x_train, y_train, x_test and y_test, or a folder with it",
    )
    parser.add_argument(
        "--fashion",
        metavar="PATH",
        type=Path,
        help="Fashion-MNIST: a folder of IDX files, or an .npz file with x_train and x_test (default: that of Debian's "
        f"{DEBIAN_PACKAGE}, if installed; else its experiment is left out)",
    )
    shown = ",".join(f"{one:g}" for one in default.lambdas)
    parser.add_argument(
        "--lambdas", metavar="L,...", type=several(_weight), help=f"weights of the center loss (default: {shown})"
    )
    for name, what, number in (
        ("epochs", "of the classifier, at most", default.epochs),
        ("head-epochs", "of the second head, at most", default.head_epochs),
        ("train-images", "of a set, drawn at random", default.train_images or "all"),
        ("seeds", "trainings of each network, each with the next seed", default.seeds),
    ):
        parser.add_argument(f"--{name}", metavar="N", type=positive, help=f"{what} (default: {number})")
    parser.add_argument(
        "--seed", metavar="N", type=int, help=f"of weights, drawing and order (default: {default.seed})"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"all images, until the loss no longer falls or {FULL.epochs} epochs, {FULL.seeds} seeds, unless told otherwise: "
        "hours",
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        type=Path,
        help="also EfficientNet-B0 on a folder with a folder per class, one half of the classes against the other",
    )
    parser.add_argument(
        "--folder-size", metavar="PX", type=positive, default=224, help="height and width of its images (default: 224)"
    )
    parser.add_argument("--threads", metavar="N", type=positive, help="default: all cores")
    parser.add_argument(
        "--pictures", metavar="DIR", type=Path, help="draw the paper's figures 5 and 6 as PNG files into this folder"
    )
    group = parser.add_argument_group("kernel and projection")
    group.add_argument(
        "--kernel",
        action="store_true",
        help="also what the distances cost with 1000 classes, and what a projection saves",
    )
    group.add_argument("--skip-experiments", action="store_true", help="this part alone")
    group.add_argument(
        "--classes", metavar="N", type=positive, help="Gaussians (default: 1000, with 1.6 GB of factors)"
    )
    group.add_argument(
        "--projected", metavar="D,...", type=several(positive), help="dimensions of projections (default: 64,128,256)"
    )
    group.add_argument("--rounds", metavar="N", type=positive, help="timed calls of each case (default: 20)")
    group.add_argument(
        "--images", metavar="N", type=positive, help="of each class, whose deep features are projected (default: 200)"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench paper center-loss`."""
    study = study_options(args)
    if args.json and (args.json.is_dir() or not args.json.parent.is_dir()):
        raise InputError(f"--json {args.json}: expected the name of a file, in a folder that exists")
    if args.full and not args.folder:
        say("EfficientNet-B0 is left out: no --folder DIR with a folder of images for each class")
    if args.skip_experiments and not args.kernel:
        raise InputError("--skip-experiments without --kernel leaves nothing to do; give --kernel as well")
    digits = read_mnist(args.data)
    # Needs torch, which a `--help` does not.
    from flawline.benchmarks.paper import center_loss_data, center_loss_study, center_loss_text

    fashion = _fashion(args.fashion)
    experiments = list(center_loss_data.digit_experiments(*digits, fashion, count=study.train_images, seed=study.seed))
    if args.skip_experiments:
        experiments = []
    elif args.folder:
        experiments += center_loss_data.folder_experiments(
            args.folder, args.folder_size, count=study.train_images, seed=study.seed
        )
    kernel = _kernel_study(args) if args.kernel else None
    if args.pictures:
        make_folder(args.pictures)
    environment = describe()
    outcomes: list[Outcome] = []
    drawn: dict[float, Drawn] = {}
    settings: dict[str, Any] = asdict(study) | {
        "experiments": [{"normal": one.name, "anomalous": one.paper, "network": one.network} for one in experiments],
        "kernel": None if kernel is None else asdict(kernel),
    }

    def write(more: dict[str, object]) -> None:
        if args.json:
            write_json(args.json, _record(settings, outcomes, environment, more))

    for outcome, one in center_loss_study.run(study, experiments, say):
        outcomes.append(outcome)
        drawn[outcome.center_weight] = one
        if len(drawn) == len(study.lambdas):
            if args.pictures:
                _draw(args.pictures, experiments, outcome, drawn)
            drawn = {}
        write({})
    sys.stdout.write(f"{heading(environment)}\n")
    if outcomes:
        sys.stdout.write(f"\n{center_loss_text.describe(outcomes)}")
    if kernel is not None:
        sys.stdout.flush()
        write(_kernel(kernel, study.threads, *digits, fashion))
    return 0


def study_options(args: argparse.Namespace) -> CenterLossStudy:
    """What is asked: options that were given, and for the rest the default or the full budget.

    Raises:
        InputError: A value out of its range.
    """
    return replace(FULL if args.full else CenterLossStudy(), **chosen(CenterLossStudy, args))


def _kernel_study(args: argparse.Namespace) -> "KernelStudy":
    from flawline.benchmarks.paper.center_loss_kernel import KernelStudy

    given = {"classes": args.classes, "projected": args.projected, "rounds": args.rounds, "images": args.images}
    return KernelStudy(**{name: value for name, value in given.items() if value is not None})


def _fashion(path: Path | None) -> "tuple[Images, Images] | None":
    from flawline.benchmarks.paper.center_loss_data import FASHION_MNIST, read_fashion

    if path is None and not FASHION_MNIST.is_dir():
        say(f"MNIST against Fashion-MNIST is left out: no --fashion PATH, and {DEBIAN_PACKAGE} is not installed")
        return None
    return read_fashion(path or FASHION_MNIST)


def _draw(folder: Path, experiments: "Sequence[Experiment]", outcome: "Outcome", drawn: "dict[float, Drawn]") -> None:
    from flawline.benchmarks.paper import center_loss_pictures

    number, experiment = next((i, one) for i, one in enumerate(experiments) if one.name == outcome.experiment)
    title = f"{experiment.name} against {experiment.paper}"
    name = f"{number + 1}-seed-{outcome.seed}.png"
    center_loss_pictures.picture_of_curves(folder / f"curves-{name}", drawn, title=title)
    center_loss_pictures.picture_of_features(folder / f"features-{name}", drawn, experiment.classes, title=title)


def _kernel(
    study: "KernelStudy", threads: int, train: Digits, test: Digits, fashion: "tuple[Images, Images] | None"
) -> dict[str, object]:
    from flawline.benchmarks.paper import center_loss_kernel, center_loss_kernel_text, center_loss_projection

    costs = center_loss_kernel.costs(study, threads, say)
    clothes = None if fashion is None else fashion[1]
    accuracies = center_loss_projection.accuracies(study, train, test, clothes, threads=threads, say=say)
    sys.stdout.write(f"\n{center_loss_kernel_text.describe(study, costs, accuracies, threads)}")
    return {
        "costs": [
            asdict(one) | {"bandwidth_share": {batch: one.bandwidth_share(batch) for batch in one.image_ns}}
            for one in costs
        ],
        "projections": [asdict(one) for one in accuracies],
    }


def _record(
    settings: dict[str, Any], outcomes: "list[Outcome]", environment: Environment, more: dict[str, object]
) -> dict[str, object]:
    from flawline.benchmarks.paper import center_loss_claims as claims

    paper = {
        "classification_f1": claims.PAPER_CLASSIFICATION_F1,
        "largest_loss_of_classification_f1": claims.PAPER_LARGEST_LOSS_OF_F1,
        "semi_supervised_gain": claims.PAPER_GAIN,
        "experiments_with_that_gain, of": claims.PAPER_GAINS,
        "largest_drop_of_supervised_f1": claims.PAPER_LARGEST_DROP,
        "best_lambdas": claims.PAPER_BEST_LAMBDAS,
    }
    found = claims.claims(outcomes) if outcomes else []
    return result(
        "paper center-loss",
        environment,
        settings=settings,
        meaning=MEANING,
        results={
            "paper": paper,
            "networks": [asdict(one) for one in outcomes],
            "claims": [asdict(one) | {"verdict": one.verdict} for one in found],
        }
        | more,
    )


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}'; expected a number, 0 or more") from None
