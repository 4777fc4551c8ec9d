"""Detection on webs of the AITEX fabric set: AUROC of tiles with a bootstrap interval over strips.

Good strips and the flawless tiles of every second defective one are fitted, the rest is tested, and the other way round.
What resolution, layers and shading give is found on strips that are fitted, never on those that are tested.

  flawline bench web --data aitex/ --backbone resnet18 --weights resnet18.pth
  flawline bench web --data aitex/ --rolls 02 --dims 32 --precisions fp32,int8 --no-choice
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from flawline.benchmarks.commands.options import add_output, add_threads, one_of, positive, say, several
from flawline.benchmarks.environment import describe
from flawline.benchmarks.record import heading
from flawline.benchmarks.tables import write_json
from flawline.benchmarks.web import study, text
from flawline.export.commands.options import add_network, add_smoothing, chosen
from flawline.export.features import open_backbone
from flawline.export.options import FitOptions
from flawline.runtime.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench web`."""
    default = study.Study()
    parser.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="streams.json, good/ROLL, defect and mask"
    )
    add_network(parser, map_stride=default.map_stride)
    parser.add_argument("--rolls", metavar="R,...", type=several(str), help=f"default: {','.join(default.rolls)}")
    parser.add_argument(
        "--dims",
        dest="dimensions",
        metavar="D,...",
        type=several(positive),
        help=f"default: {','.join(map(str, default.dimensions))}; variants are compared at the first",
    )
    parser.add_argument(
        "--components",
        metavar="K,...",
        type=several(positive),
        help=f"Gaussians of the web (default: {','.join(map(str, default.components))}); variants are compared with the first",
    )
    parser.add_argument("--seeds", metavar="N", type=positive, help=f"number of seeds (default: {default.seeds})")
    parser.add_argument(
        "--precisions",
        metavar="P,...",
        type=several(one_of(("fp32", "int8"))),
        help="of the network (default: fp32)",
    )
    parser.add_argument(
        "--tile", dest="tile_px", metavar="PX", type=positive, help=f"of a tile, default: {default.tile_px}"
    )
    parser.add_argument("--no-choice", dest="choose", action="store_false", help="compare no variants")
    parser.add_argument("--draws", metavar="N", type=positive, help=f"of the bootstrap (default: {default.draws})")
    add_smoothing(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench web`."""
    if args.image_size is not None:
        raise InputError(f"--image-size {args.image_size} is for pictures; strips are seen whole: leave it out")
    asked = replace(study.Study(), **chosen(study.Study, args))
    environment = describe()
    backbone = open_backbone(
        args.backbone or FitOptions.backbone,
        layers=args.layers,
        weights=args.weights,
        image_size=None,
        mean=args.mean,
        std=args.std,
        seed=0,
    )
    sys.stdout.write(heading(environment) + "\n")
    results = []
    for one in study.run(asked, args.data, backbone, say):
        results.append(one)
        sys.stdout.write("\n" + text.describe(one, backbone.graph.layers))
        sys.stdout.flush()
        if args.json:
            write_json(args.json, study.as_json(asked, backbone, results, environment))
    return 0
