"""Fits a detector on a folder of good images and writes a bundle.

The images are split: most are fitted, the rest calibrate the threshold, so that a new good image is rejected with at
most the probability that --false-reject-rate asks for. The network is exported to ONNX with the projection folded in,
the statistics are collected from that very file, and the result must score like a float64 reference before anything is
written.

  flawline fit good/ --out part.flaw
  flawline fit good/ --out part.flaw --backbone resnet18 --weights resnet18.pth --dim 64
  flawline fit good/ --out part.flaw --backbone net.onnx --layers relu_2,relu_5
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    from flawline.calibration.gaussian import TIES
    from flawline.calibration.projections import KINDS
    from flawline.detectors import NETWORKS
    from flawline.export.fit import FitOptions

    default = FitOptions()
    parser.add_argument("good", metavar="GOOD_DIR", type=Path, help="folder of good images")
    parser.add_argument("--out", metavar="BUNDLE", type=Path, required=True, help="bundle to make; must not exist")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--backbone",
        metavar="NAME",
        default=default.backbone,
        help=f"{', '.join(NETWORKS)} or the path of an .onnx file (default: %(default)s)",
    )
    network.add_argument("--layers", metavar="A,B,...", type=_words, help="feature layers (default: the network's)")
    network.add_argument("--weights", metavar="FILE", help=".pth, .safetensors or .npz; 'random' for timing only")
    network.add_argument("--image-size", metavar="N", type=int, help="height and width of the input, px (default: 224)")
    network.add_argument(
        "--map-stride", metavar="N", type=int, help="input pixels per map position (default: network's)"
    )
    network.add_argument(
        "--mean", metavar="R,G,B", type=_numbers, help="for .onnx: units of 0 to 255 (default: ImageNet)"
    )
    network.add_argument("--std", metavar="R,G,B", type=_numbers, help="for .onnx: likewise")
    network.add_argument("--precision", choices=["fp32"], default="fp32", help="of the network (default: %(default)s)")
    model = parser.add_argument_group("model of normal")
    model.add_argument("--projection", choices=KINDS, default=default.projection, help="default: %(default)s")
    model.add_argument("--dim", metavar="D", type=int, help="dimension after projection (default: 100)")
    model.add_argument(
        "--tie",
        choices=TIES,
        default=default.statistics.tie,
        help="which positions share a Gaussian: none (aligned parts), a column or all (textures) (default: %(default)s)",
    )
    model.add_argument("--components", metavar="K", type=int, default=1, help="Gaussians per position, column or web")
    model.add_argument(
        "--epsilon",
        metavar="E",
        type=float,
        default=default.statistics.epsilon,
        help="added to each covariance, in mean feature variances (default: %(default)s)",
    )
    model.add_argument("--epsilon-absolute", action="store_true", help="add epsilon as it is; the papers use 0.01")
    model.add_argument("--shrinkage", metavar="S", type=_shrinkage, help="oas, ledoit-wolf or a number from 0 to 1")
    model.add_argument(
        "--factors", choices=["fp16", "fp32"], default="fp16", help="stored factors (default: %(default)s)"
    )
    model.add_argument(
        "--upsampling", choices=["bilinear", "nearest"], default=default.upsampling, help="default: %(default)s"
    )
    model.add_argument(
        "--smoothing",
        metavar="PX",
        type=float,
        default=default.smoothing_px,
        help="sigma of the map's smoothing, px of the input (default: %(default)s)",
    )
    images = parser.add_argument_group("images and threshold")
    images.add_argument(
        "--false-reject-rate",
        metavar="R",
        type=float,
        default=default.false_reject_rate,
        help="share of good images that may be rejected; needs 1 / R - 1 held-out images (default: %(default)s)",
    )
    images.add_argument("--calibration-images", metavar="N", type=int, help="images held out (default: a fifth)")
    images.add_argument("--fit-images", metavar="N", type=int, help="fit at most N images (default: all others)")
    images.add_argument("--group-by", metavar="REGEX", help="images whose names give the same match stay together")
    images.add_argument("--skip-bad", action="store_true", help="go on without images that cannot be read")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of every random draw (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, default=default.threads, help="default: all cores")
    parser.add_argument("--json", action="store_true", help="print the manifest's facts as JSON")


def run(options: argparse.Namespace) -> int:
    """Fits and writes; prints what came of it."""
    from flawline.calibration.statistics import StatisticsOptions
    from flawline.export.fit import FitOptions, fit_bundle
    from flawline.export.parity import ParityError
    from flawline.runtime.commands.info import as_json
    from flawline.runtime.images import list_images

    fit_options = FitOptions(
        backbone=options.backbone,
        layers=options.layers,
        weights=options.weights,
        image_size=options.image_size,
        map_stride=options.map_stride,
        mean=options.mean,
        std=options.std,
        projection=options.projection,
        dimension=options.dim,
        upsampling=options.upsampling,
        smoothing_px=options.smoothing,
        statistics=StatisticsOptions(
            tie=options.tie,
            components=options.components,
            epsilon=options.epsilon,
            epsilon_relative=not options.epsilon_absolute,
            shrinkage=options.shrinkage,
            factors=options.factors,
            seed=options.seed,
        ),
        false_reject_rate=options.false_reject_rate,
        calibration_images=options.calibration_images,
        fit_images=options.fit_images,
        group_by=options.group_by,
        skip_bad=options.skip_bad,
        seed=options.seed,
        threads=options.threads,
    )
    try:
        bundle = fit_bundle(
            list_images(options.good), options.out, fit_options, lambda line: sys.stderr.write(line + "\n")
        )
    except ParityError as error:
        sys.stderr.write(f"flawline fit: {error}\n")
        return 1
    threshold = bundle.manifest.threshold
    sys.stdout.write(
        as_json(bundle)
        if options.json
        else f"{bundle.path}: {bundle.total_bytes / 1e6:.1f} MB, threshold {threshold.score:.4g} for a false-reject rate of "
        f"{threshold.false_reject_rate:g}, bundle {bundle.hash[:12]}\n"
    )
    return 0


def _words(text: str) -> tuple[str, ...]:
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
    return text if text in ("oas", "ledoit-wolf") else float(text)
