"""Options of `flawline fit --detector padim`, of images and of endless webs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.export.commands.options import add_model, add_network, chosen, fit_options
from flawline.export.features import DEFAULT_DIMENSION
from flawline.export.fitting import Say
from flawline.export.options import FitOptions, WebOptions
from flawline.runtime.errors import InputError
from flawline.runtime.precisions import PRECISIONS

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle

_OF_WEBS = {
    "--strip-lines": "strip_lines",
    "--tile": "tile_px",
    "--pixel-pitch-mm": "pixel_mm",
    "--line-pitch-mm": "line_mm",
    "--edges-margin": "margin_px",
    "--no-edges": "no_edges",
    "--shading": "shading_px",
    "--lane": "lane_px",
    "--binning": "binning",
    "--flat-field": "flat_field",
}


def add_padim(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    network = parser.add_argument_group(
        "network",
        "with --detector padim; --weights, --image-size, --mean, --std and --precision with --detector center-loss too",
    )
    add_network(network)
    network.add_argument("--layout", choices=["nhwc", "nchw"], help=f"of the input (default: {FitOptions.layout})")
    network.add_argument("--precision", choices=PRECISIONS, help=f"of the network (default: {FitOptions.precision})")
    network.add_argument(
        "--labelled",
        metavar="DIR",
        type=Path,
        help="with --precision, also compare AUROC on this folder (MVTec layout: test/good, test/KIND)",
    )
    model = parser.add_argument_group(
        "model of normal",
        "with --detector padim; --dim, --projection, --epsilon, --epsilon-absolute, --shrinkage and --factors with "
        "--detector center-loss too",
    )
    model.add_argument(
        "--dim", dest="dimension", metavar="D", type=int, help=f"after projection (default: {DEFAULT_DIMENSION})"
    )
    add_model(model)
    _add_web(parser)


def _add_web(parser: argparse.ArgumentParser) -> None:
    default = WebOptions()
    web = parser.add_argument_group(
        "webs", "with --detector padim: an endless web from a line camera, at its own resolution"
    )
    web.add_argument(
        "--web", action="store_true", help="GOOD_DIR holds pieces of web, or is a source such as replay:DIR"
    )
    web.add_argument(
        "--strip-lines", metavar="N", type=int, help=f"height of a strip (default: {default.strip_lines} lines)"
    )
    web.add_argument(
        "--tile", dest="tile_px", metavar="PX", type=int, help="width of a tile (default: four times the context)"
    )
    web.add_argument(
        "--pixel-pitch-mm", dest="pixel_mm", metavar="MM", type=float, help="distance of neighbouring pixels"
    )
    web.add_argument("--line-pitch-mm", dest="line_mm", metavar="MM", type=float, help="travel of the web per line")
    web.add_argument(
        "--edges-margin",
        dest="margin_px",
        metavar="PX",
        type=int,
        help=f"masked inside each edge of the web, such as a selvedge (default: {default.margin_px} px)",
    )
    web.add_argument(
        "--binning",
        metavar="N",
        type=int,
        help="the network sees the mean of N x N pixels: N^2 times fewer, and flaws N times larger (default: 1)",
    )
    web.add_argument("--no-edges", action="store_true", help="the web fills the image; do not look for its edges")
    web.add_argument(
        "--shading",
        dest="shading_px",
        metavar="PX",
        type=int,
        help="take out changes of brightness over more pixels than these (default: none)",
    )
    web.add_argument(
        "--flat-field",
        metavar="FILE",
        type=Path,
        help="taken out of every line first, as in the stream: recordings hold raw pixels (`flawline camera flat-field` makes it)",
    )
    web.add_argument(
        "--lane",
        dest="lane_px",
        metavar="PX",
        type=int,
        help="with --tie column: one model per lane of so many pixels across the web (default: one per column)",
    )


def fit_padim(options: argparse.Namespace, say: Say) -> "Bundle":
    """Fits and writes a bundle.

    Args:
        options: Parsed.
        say: Takes each line that tells what is being done.

    Raises:
        FlawlineError: As for `fit_bundle` and `fit_web_bundle`.
    """
    return _fit_web(options, say) if options.web else _fit_images(options, say)


def _fit_images(options: argparse.Namespace, say: Say) -> "Bundle":
    from flawline.export.fit import fit_bundle
    from flawline.export.labelled import read_labelled
    from flawline.runtime.images import list_images

    for option, name in _OF_WEBS.items():
        # Not by its truth: 0 is a margin.
        if getattr(options, name) is not None and getattr(options, name) is not False:
            raise InputError(f"{option} is for webs; expected --web as well")
    return fit_bundle(
        list_images(Path(options.good)),
        options.out,
        fit_options(options),
        say,
        labelled=None if options.labelled is None else read_labelled(options.labelled),
    )


def _fit_web(options: argparse.Namespace, say: Say) -> "Bundle":
    from flawline.export.fit_web import fit_web_bundle

    for name in ("labelled", "group_by", "calibration_images", "fit_images", "skip_bad"):
        if getattr(options, name):
            raise InputError(f"--{name.replace('_', '-')} is for folders of images; it does not go with --web")
    if options.tie is None:
        options.tie = "global"
    if options.tie == "column" and options.tile_px is not None:
        raise InputError("--tile does not go with --tie column, where a tile is as wide as the web")
    chosen_web = chosen(WebOptions, options)
    if options.no_edges:
        if options.margin_px is not None:
            raise InputError("--edges-margin with --no-edges; expected one of them")
        chosen_web["margin_px"] = None
    return fit_web_bundle(options.good, options.out, fit_options(options), WebOptions(**chosen_web), say)
