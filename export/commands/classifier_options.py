"""Options of `flawline fit --detector center-loss`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.calibration.class_statistics import ClassOptions
from flawline.calibration.shrinkage import ESTIMATORS
from flawline.detectors.classifiers import CLASSIFIERS
from flawline.export.classifier_options import (
    CENTER_WEIGHT,
    FILE_SIDE_PX,
    HEAD_EPOCHS,
    PATIENCE,
    ClassifierOptions,
)
from flawline.export.commands.options import chosen
from flawline.export.fitting import Say

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle

_NETWORKS = CLASSIFIERS.values()
_DIFFERENT = {
    "weights": "begins the training; fresh ones without",
    "image_size": ", ".join(f"{of.side_px} for {of.name}" for of in _NETWORKS) + f", {FILE_SIDE_PX} for .onnx",
    "epochs": ", ".join(f"{of.epochs} for {of.name}" for of in _NETWORKS),
    "patience": f"{PATIENCE}",
    "batch_size": ", ".join(f"{of.batch_size} for {of.name}" for of in _NETWORKS),
    "dimension": "all",
    "projection": "with --dim",
    "factors": ClassOptions.factors,
    "shrinkage": f"{' or '.join(ESTIMATORS)} (default: {ClassOptions.shrinkage})",
}


def add_classifier(parser: argparse.ArgumentParser) -> None:
    """Declares the options, and says of those that other detectors have declared what they are here.

    None has a default here, so that one that was given is told from one that was not.
    """
    for action in parser._actions:
        if action.dest in _DIFFERENT:
            action.help = f"{action.help}; center-loss: {_DIFFERENT[action.dest]}"
    group = parser.add_argument_group(
        "classifiers",
        "with --detector center-loss: GOOD_DIR has a folder per class, or is an .npz file or a folder of IDX files",
    )
    group.add_argument("--layer", metavar="NAME", help="of an .onnx file: the tensor with the deep features")
    group.add_argument(
        "--center-weight",
        metavar="L",
        type=float,
        help=f"lambda, how much the center loss counts beside cross-entropy; 0 for none (default: {CENTER_WEIGHT:g})",
    )
    group.add_argument(
        "--percentile",
        metavar="P",
        type=float,
        help="of the distances of a class's own images: beyond it, an image is none of that class "
        f"(default: {ClassOptions.percentile:g})",
    )
    group.add_argument(
        "--anomalies",
        metavar="PATH",
        type=Path,
        help="images of none of the classes, with which a second head is trained; it is one more score, `--map head`",
    )
    group.add_argument(
        "--head-epochs", metavar="N", type=int, help=f"of the second head, at most (default: {HEAD_EPOCHS})"
    )


def fit_classifier(options: argparse.Namespace, say: Say) -> "Bundle":
    """Fits and writes a bundle.

    Args:
        options: Parsed.
        say: Takes each line that tells what is being done.

    Raises:
        FlawlineError: As for `fit_classifier_bundle`.
    """
    from flawline.export.fit_classifier import fit_classifier_bundle

    statistics = ClassOptions(**chosen(ClassOptions, options))
    made = ClassifierOptions(**chosen(ClassifierOptions, options) | {"statistics": statistics})
    return fit_classifier_bundle(Path(options.good), options.out, made, say)
