"""Options of `flawline fit --detector autoencoder`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.detectors.autoencoders import AUTOENCODERS
from flawline.detectors.classifiers import CLASSIFIERS
from flawline.export.autoencoder_options import AutoencoderOptions
from flawline.export.classifier_options import ClassifierOptions
from flawline.export.commands.options import chosen, words
from flawline.export.fitting import Say
from flawline.runtime.bundle.manifest import RECONSTRUCTION_MAP_KINDS
from flawline.runtime.images import list_images

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle

_LOSSES = ("mse", "pse")


def add_autoencoder(parser: argparse.ArgumentParser) -> None:
    """Declares the options. None has a default here, so that one that was given is told from one that was not."""
    default = AutoencoderOptions()
    group = parser.add_argument_group(
        "autoencoders, and training",
        "with --detector autoencoder: a network that rebuilds good images; --network, --epochs, --patience, --batch-size, "
        "--learning-rate and --checkpoint with --detector center-loss too",
    )
    group.add_argument(
        "--network",
        metavar="NAME",
        help=f"{' or '.join(AUTOENCODERS)} (default: {default.network}); with --detector "
        f"center-loss {', '.join(CLASSIFIERS)} or the path of an .onnx file (default: {ClassifierOptions.network})",
    )
    bottlenecks = ", ".join(f"{description.bottleneck} for {name}" for name, description in AUTOENCODERS.items())
    group.add_argument("--bottleneck", metavar="N", type=int, help=f"values in a code (default: {bottlenecks})")
    group.add_argument(
        "--loss",
        choices=_LOSSES,
        help=f"of the training: mean squared or Proximally Sensitive Error, of --sigma (default: {default.loss})",
    )
    group.add_argument("--epochs", metavar="N", type=int, help=f"of training, at most (default: {default.epochs})")
    group.add_argument(
        "--patience",
        metavar="N",
        type=int,
        help="epochs without a lower loss on a tenth of the images, kept for validation, after which training stops "
        f"(default: {default.patience})",
    )
    group.add_argument("--batch-size", metavar="N", type=int, help=f"images per step (default: {default.batch_size})")
    group.add_argument("--learning-rate", metavar="R", type=float, help=f"of Adam (default: {default.learning_rate})")
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=Path,
        help="written after each epoch; training goes on from it if it exists",
    )
    group.add_argument(
        "--maps",
        metavar="A,B,...",
        type=words,
        help=f"anomaly maps that the bundle offers, of {', '.join(RECONSTRUCTION_MAP_KINDS)}; the first is the default one "
        f"(default: {','.join(default.maps)})",
    )


def fit_autoencoder(options: argparse.Namespace, say: Say) -> "Bundle":
    """Fits and writes a bundle.

    Args:
        options: Parsed.
        say: Takes each line that tells what is being done.

    Raises:
        FlawlineError: As for `fit_autoencoder_bundle`.
    """
    from flawline.export.fit_autoencoder import fit_autoencoder_bundle

    made = AutoencoderOptions(**chosen(AutoencoderOptions, options))
    return fit_autoencoder_bundle(list_images(Path(options.good)), options.out, made, say)
