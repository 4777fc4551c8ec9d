"""Fits a detector on a folder of good images and writes a bundle.

The images are split: most are fitted, the rest calibrate the threshold, so that a new good image is rejected with at
most the probability that --false-reject-rate asks for. The network is exported to ONNX with the projection folded in,
the statistics are collected from that very file, and the result must score like a float64 reference before anything is
written. --precision converts the network after that and fits it again in that form, for the engine it is made for: int8 is for
ONNX Runtime and int8-openvino for OpenVINO on a CPU, bf16 for OpenVINO on processors that compute in it, int8-tensorrt for
TensorRT, fp16 for GPUs.

  flawline fit good/ --out part.flaw
  flawline fit good/ --out part.flaw --backbone resnet18 --weights resnet18.pth --dim 64
  flawline fit good/ --out part.flaw --backbone net.onnx --layers relu_2,relu_5
  flawline fit rolls/ --web --out fabric.flaw --backbone resnet18 --components 8 --shading 512
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.export.commands.options import add_model, add_network, chosen, fit_options
from flawline.export.features import DEFAULT_DIMENSION
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    default = FitOptions()
    parser.add_argument("good", metavar="GOOD_DIR", help="folder of good images; of pieces, or a source, of good web")
    parser.add_argument("--out", metavar="BUNDLE", type=Path, required=True, help="bundle to make; must not exist")
    network = parser.add_argument_group("network")
    add_network(network)
    network.add_argument(
        "--layout", choices=["nhwc", "nchw"], default=default.layout, help="of the input (default: %(default)s)"
    )
    network.add_argument(
        "--precision", choices=PRECISIONS, default=default.precision, help="of the network (default: %(default)s)"
    )
    model = parser.add_argument_group("model of normal")
    model.add_argument(
        "--dim", dest="dimension", metavar="D", type=int, help=f"after projection (default: {DEFAULT_DIMENSION})"
    )
    add_model(model)
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
    images.add_argument(
        "--labelled",
        metavar="DIR",
        type=Path,
        help="with --precision, also compare AUROC on this folder (MVTec layout: test/good, test/KIND)",
    )
    add_web(parser)
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of every random draw (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, default=default.threads, help="default: all cores")
    parser.add_argument("--json", action="store_true", help="print the manifest's facts as JSON")


def add_web(parser: argparse.ArgumentParser) -> None:
    """Declares the options that go with a web."""
    default = WebOptions()
    web = parser.add_argument_group("webs", "an endless web from a line camera, at its own resolution")
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


def run(options: argparse.Namespace) -> int:
    """Fits and writes; prints what came of it."""
    from flawline.export.parity import ParityError
    from flawline.runtime.commands.info import as_json

    try:
        bundle = _fit_web(options) if options.web else _fit_images(options)
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


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _fit_images(options: argparse.Namespace) -> "Bundle":
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
        _say,
        labelled=None if options.labelled is None else read_labelled(options.labelled),
    )


def _fit_web(options: argparse.Namespace) -> "Bundle":
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
    return fit_web_bundle(options.good, options.out, fit_options(options), WebOptions(**chosen_web), _say)
