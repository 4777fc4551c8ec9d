"""Options that `flawline fit` shares with the benchmarks: declared once, so that words and defaults cannot drift.

An option is stored under the name of the field that it sets, in `FitOptions`, `StatisticsOptions` or what else a
command makes of it.
"""

import argparse
from dataclasses import fields
from typing import Any, get_args

from flawline.calibration.gaussian import TIES
from flawline.calibration.projections import KINDS
from flawline.calibration.shrinkage import ESTIMATORS
from flawline.calibration.statistics import FactorType, StatisticsOptions
from flawline.calibration.woodbury import Form
from flawline.detectors import NETWORKS
from flawline.export.options import FitOptions


def add_network(parser: argparse._ActionsContainer, *, map_stride: int | None = None) -> None:
    """Declares which network it is and how images reach it.

    Args:
        parser: Takes the options.
        map_stride: Default stride of the map; the network's own if None.
    """
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help=f"{', '.join(NETWORKS)} or the path of an .onnx file (default: {FitOptions.backbone})",
    )
    parser.add_argument("--layers", metavar="A,B,...", type=words, help="feature layers (default: the network's)")
    parser.add_argument("--weights", metavar="FILE", help=".pth, .safetensors or .npz; 'random' for timing only")
    parser.add_argument("--image-size", metavar="N", type=int, help="height and width of the input, px (default: 224)")
    parser.add_argument(
        "--map-stride",
        metavar="N",
        type=int,
        default=map_stride,
        help="input pixels per map position "
        + ("(default: the network's)" if map_stride is None else "(default: %(default)s)"),
    )
    parser.add_argument(
        "--mean", metavar="R,G,B", type=_numbers, help="for .onnx: units of 0 to 255, 1 number or 3 (default: ImageNet)"
    )
    parser.add_argument("--std", metavar="R,G,B", type=_numbers, help="for .onnx: likewise")


def add_model(parser: argparse._ActionsContainer) -> None:
    """Declares how good images are modelled, all but the dimension."""
    default = StatisticsOptions()
    parser.add_argument(
        "--projection", choices=KINDS, default=FitOptions.projection, help=f"default: {FitOptions.projection}"
    )
    parser.add_argument(
        "--tie",
        choices=TIES,
        help="which positions share a Gaussian: none (aligned parts), a column or all (textures); "
        f"default: {default.tie}, for webs global",
    )
    parser.add_argument(
        "--components",
        metavar="K",
        type=int,
        default=default.components,
        help=f"Gaussians per position, column or web (default: {default.components})",
    )
    parser.add_argument(
        "--epsilon",
        metavar="E",
        type=float,
        default=default.epsilon,
        help=f"added to each covariance, in mean feature variances (default: {default.epsilon})",
    )
    parser.add_argument(
        "--epsilon-absolute",
        dest="epsilon_relative",
        action="store_false",
        help="add epsilon as it is; the papers use 0.01",
    )
    parser.add_argument(
        "--shrinkage", metavar="S", type=_shrinkage, help=f"{', '.join(ESTIMATORS)} or a number from 0 to 1"
    )
    parser.add_argument(
        "--factors",
        choices=get_args(FactorType),
        default=default.factors,
        help=f"stored factors (default: {default.factors})",
    )
    parser.add_argument(
        "--form",
        choices=get_args(Form),
        help="of the factors (default: woodbury where few images make it a quarter smaller, else triangle)",
    )
    parser.add_argument(
        "--upsampling",
        choices=("bilinear", "nearest"),
        default=FitOptions.upsampling,
        help=f"default: {FitOptions.upsampling}",
    )
    add_smoothing(parser)


def add_smoothing(parser: argparse._ActionsContainer) -> None:
    """Declares how the anomaly map is smoothed."""
    parser.add_argument(
        "--smoothing",
        dest="smoothing_px",
        metavar="PX",
        type=float,
        default=FitOptions.smoothing_px,
        help=f"sigma of the map's smoothing, px of the input (default: {FitOptions.smoothing_px:g})",
    )


def add_proximity(parser: argparse.ArgumentParser) -> None:
    """Declares the Gaussian of the proximally sensitive error. None has a default here: each detector has its own."""
    group = parser.add_argument_group("proximally sensitive error", "with --detector pca-pse and autoencoder")
    group.add_argument(
        "--sigma",
        metavar="PX",
        type=float,
        help="standard deviation of its Gaussian, px of --image-size; 0 for none (default: chosen for pca-pse, 0.5 for autoencoders)",
    )
    group.add_argument(
        "--unscaled",
        dest="normalised",
        action="store_false",
        help="taps of the map as equation 4 of the paper has them, not scaled to sum 1; --loss pse has them scaled in any case",
    )


def chosen(kind: type, options: argparse.Namespace) -> dict[str, Any]:
    """The options that carry the names of a dataclass's fields, by name; without those that have no value.

    Args:
        kind: A dataclass.
        options: Parsed.
    """
    given = vars(options)
    return {field.name: given[field.name] for field in fields(kind) if given.get(field.name) is not None}


def fit_options(options: argparse.Namespace) -> FitOptions:
    """Everything that shapes a bundle, as far as the command has options for it; defaults for the rest.

    Raises:
        InputError: A number is not what it must be.
    """
    return FitOptions(**chosen(FitOptions, options), statistics=StatisticsOptions(**chosen(StatisticsOptions, options)))


def words(text: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"'{text}'; expected one number, or three such as 124,116,104")
    return numbers


def _shrinkage(text: str) -> str | float:
    if text in ESTIMATORS:
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}'; expected {', '.join(ESTIMATORS)} or a number from 0 to 1"
        ) from None
