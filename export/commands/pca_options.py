"""Options of `flawline fit --detector pca-pse`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.export.commands.options import chosen
from flawline.export.fitting import Say
from flawline.export.reconstruction_options import PcaOptions
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle


def add_pca(parser: argparse.ArgumentParser) -> None:
    """Declares the options. None has a default here, so that one that was given is told from one that was not."""
    group = parser.add_argument_group(
        "principal components",
        "with --detector pca-pse; --components then are principal ones, and they and --sigma are chosen unless given",
    )
    group.add_argument(
        "--few-shot",
        metavar="DIR",
        type=Path,
        help="labelled images to choose by, in good/ and other folders, or in test/good and test/KIND; none of the good "
        "ones may be in GOOD_DIR (default: the choice is by good images alone)",
    )
    group.add_argument(
        "--shots",
        metavar="N",
        type=int,
        help=f"so many of each of its folders, drawn at random (default: {PcaOptions.shots})",
    )


def fit_pca(options: argparse.Namespace, say: Say) -> "Bundle":
    """Fits and writes a bundle.

    Args:
        options: Parsed.
        say: Takes each line that tells what is being done.

    Raises:
        FlawlineError: As for `fit_pca_bundle`, or an option would have no effect.
    """
    from flawline.export.fit_pca import fit_pca_bundle

    if options.shots is not None and options.few_shot is None:
        raise InputError(
            f"--shots {options.shots} without --few-shot; expected the folder that they are drawn from as well"
        )
    made = PcaOptions(**chosen(PcaOptions, options))
    return fit_pca_bundle(list_images(Path(options.good)), options.out, made, say)
