"""Fits a detector on a folder of good images and writes a bundle.

The images are split: most are fitted, the rest calibrate the threshold, so that a new good image is rejected with at
most the probability that --false-reject-rate asks for. What is exported must score like a float64 reference before anything
is written. There are four detectors:

padim (the default): Gaussians over the features of a network, exported to ONNX with the projection folded in; the statistics
are collected from that very file. --precision converts the network after that and fits it again in that form, for the engine
it is made for: int8 is for ONNX Runtime and int8-openvino for OpenVINO on a CPU, bf16 for OpenVINO on processors that compute
in it, int8-tensorrt for TensorRT, fp16 for GPUs.

  flawline fit good/ --out part.flaw
  flawline fit good/ --out part.flaw --backbone resnet18 --weights resnet18.pth --dim 64
  flawline fit good/ --out part.flaw --backbone net.onnx --layers relu_2,relu_5
  flawline fit rolls/ --web --out fabric.flaw --backbone resnet18 --components 8 --shading 512

pca-pse: aligned parts are rebuilt from their principal components, and what is left is smoothed and squared (Proximally
Sensitive Error). No network, no weights. Images become 128 x 128 px unless --image-size says otherwise. How many components and
which sigma is chosen by good images alone, or by five labelled images of each kind:

  flawline fit good/ --out part.flaw --detector pca-pse
  flawline fit good/ --out part.flaw --detector pca-pse --few-shot labelled/
  flawline fit good/ --out part.flaw --detector pca-pse --components 32 --sigma 2

autoencoder: a network is trained to rebuild good images, at 128 x 128 px too; what it rebuilds badly, or what its error hangs
on (saliency), is anomalous:

  flawline fit good/ --out part.flaw --detector autoencoder --loss pse --maps pse,saliency

center-loss: a classifier that also says when an image is of none of its classes. It is trained with cross-entropy and center
loss on a folder with a folder per class (or an .npz file, or IDX files); then each class is modelled by a Gaussian of the deep
features, beyond which an image is none of it. --anomalies trains a second head with images of no class. --precision int8 (or one of
the other two in 8 bits) quantises the network after that and models the classes again:

  flawline fit classes/ --out sorter.flaw --detector center-loss
  flawline fit mnist.npz --out digits.flaw --detector center-loss --center-weight 1 --anomalies others/
  flawline fit classes/ --out sorter.flaw --detector center-loss --network net.onnx --layer relu_7
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.export.commands.autoencoder_options import add_autoencoder, fit_autoencoder
from flawline.export.commands.classifier_options import add_classifier, fit_classifier
from flawline.export.commands.options import add_proximity
from flawline.export.commands.padim_options import add_padim, fit_padim
from flawline.export.commands.pca_options import add_pca, fit_pca
from flawline.export.fitting import Say
from flawline.export.options import FitOptions
from flawline.runtime.errors import InputError

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle

_FITS: dict[str, Callable[[argparse.Namespace, Say], "Bundle"]] = {
    "padim": fit_padim,
    "pca-pse": fit_pca,
    "autoencoder": fit_autoencoder,
    "center-loss": fit_classifier,
}
_GROUPS: tuple[tuple[tuple[str, ...], Callable[[argparse.ArgumentParser], None]], ...] = (
    (("padim",), add_padim),
    (("pca-pse", "autoencoder"), add_proximity),
    (("pca-pse",), add_pca),
    (("autoencoder",), add_autoencoder),
    (("center-loss",), add_classifier),
)
_OF_FOLDERS = ("padim", "pca-pse", "autoencoder")
# Declared once, by one of them, or with the images.
_SHARED: dict[str, tuple[str, ...]] = {
    "components": ("padim", "pca-pse"),
    "image_size": (*_OF_FOLDERS, "center-loss"),
    **dict.fromkeys(
        (
            *("weights", "mean", "std", "dimension", "projection", "precision"),
            *("epsilon", "epsilon_relative", "shrinkage", "factors"),
        ),
        ("padim", "center-loss"),
    ),
    **dict.fromkeys(
        ("network", "epochs", "patience", "batch_size", "learning_rate", "checkpoint"), ("autoencoder", "center-loss")
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    default = FitOptions()
    parser.add_argument(
        "good",
        metavar="GOOD_DIR",
        help="folder of good images; of pieces, or a source, of good web; of a folder per class",
    )
    parser.add_argument("--out", metavar="BUNDLE", type=Path, required=True, help="bundle to make; must not exist")
    parser.add_argument("--detector", choices=_FITS, default="padim", help="default: %(default)s")
    images = parser.add_argument_group("images and threshold")
    images.add_argument(
        "--false-reject-rate",
        metavar="R",
        type=float,
        default=default.false_reject_rate,
        help="share of good images that may be rejected; needs 1 / R - 1 held-out images (default: %(default)s)",
    )
    images.add_argument("--calibration-images", metavar="N", type=int, help="images held out (default: a fifth)")
    images.add_argument(
        "--fit-images", metavar="N", type=int, help="fit N of the others, drawn at random (default: all)"
    )
    images.add_argument("--group-by", metavar="REGEX", help="images whose names give the same match stay together")
    images.add_argument("--skip-bad", action="store_true", help="go on without images that cannot be read")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of every random draw (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, default=default.threads, help="default: all cores")
    parser.add_argument("--json", action="store_true", help="print the manifest's facts as JSON")
    of_folders = ("fit_images", "group_by", "skip_bad")
    owned: dict[str, tuple[str, tuple[str, ...]]] = {
        name: (flag, _OF_FOLDERS) for name, flag in _declared(parser).items() if name in of_folders
    }
    for detectors, declare in _GROUPS:
        before = _declared(parser)
        declare(parser)
        own = {name: flag for name, flag in _declared(parser).items() if name not in before}
        owned |= {name: (flag, _SHARED.get(name, detectors)) for name, flag in own.items()}
    # What is given is told from what is not, and the defaults are those of the library.
    parser.set_defaults(owned=owned, **dict.fromkeys(owned))


def run(options: argparse.Namespace) -> int:
    """Fits and writes; prints what came of it."""
    from flawline.export.parity import ParityError
    from flawline.runtime.commands.info import as_json

    _refuse_foreign(options)
    try:
        bundle = _FITS[options.detector](options, _say)
    except ParityError as error:
        sys.stderr.write(f"flawline fit: {error}\n")
        return 1
    threshold = bundle.manifest.threshold
    sys.stdout.write(
        as_json(bundle)
        if options.json
        else f"{bundle.path}: {bundle.total_bytes / 1e6:.1f} MB, threshold {threshold.score:.4g} for a "
        f"false-reject rate of {threshold.false_reject_rate:g}, bundle {bundle.hash[:12]}\n"
    )
    return 0


def _declared(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Flags by the names that their values are stored under."""
    return {action.dest: action.option_strings[0] for action in parser._actions if action.option_strings}


def _refuse_foreign(options: argparse.Namespace) -> None:
    """Refuses an option that would have no effect."""
    for name, (flag, detectors) in options.owned.items():
        if getattr(options, name) is not None and options.detector not in detectors:
            raise InputError(
                f"{flag} does not go with --detector {options.detector}; expected it with {' or '.join(detectors)}"
            )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
