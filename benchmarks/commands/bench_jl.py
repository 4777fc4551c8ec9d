"""Measures what a Johnson-Lindenstrauss projection gains, and what it costs, against random selection of channels.

Accuracy: for each kind of projection, dimension and seed, image AUROC and, with masks, pixel AUROC, over a sweep of
epsilons. The comparison uses the epsilon that the other half of the labelled images chose, then the fixed ones. Pairs
of one seed give intervals; a sentence says where JL is better and where it is not. Equal options give equal accuracies,
bit for bit, whatever the number of threads.

Cost: latency of the Mahalanobis step and of a whole frame, bytes of the factors and of the bundle, by dimension.

  flawline bench jl --data tiles/ --backbone resnet18 --weights resnet18.pth --plots plots/
  flawline bench jl --data elpv-poly --quick
  flawline bench jl --headline --images tiles/train/good
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from flawline.benchmarks.commands.options import add_data, add_output, add_threads, positive, say, several
from flawline.benchmarks.environment import describe
from flawline.benchmarks.jl import headline, study, text
from flawline.benchmarks.jl.sweep import DEFAULT_EPSILONS, Epsilon
from flawline.benchmarks.record import heading, result, unstable
from flawline.benchmarks.tables import write_json
from flawline.benchmarks.timing import null_overhead
from flawline.calibration.projections import KINDS
from flawline.export.commands.options import add_network, add_smoothing, chosen
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image

HEADLINE_FRAMES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench jl`."""
    default = study.Study(data="")
    add_data(parser, required=False)
    add_network(parser, map_stride=default.map_stride)
    parser.add_argument(
        "--cost-map-stride",
        metavar="N",
        type=int,
        help="likewise, for time and bytes (default: the network's)",
    )
    parser.add_argument(
        "--dims",
        dest="dimensions",
        metavar="D,...",
        type=several(positive),
        help=f"default: {_list(default.dimensions)}",
    )
    parser.add_argument("--kinds", metavar="K,...", type=several(_kind), help=f"default: {','.join(default.kinds)}")
    parser.add_argument("--seeds", metavar="N", type=positive, help=f"number of seeds (default: {default.seeds})")
    parser.add_argument(
        "--epsilons",
        metavar="E,...",
        type=several(_epsilon),
        help="in mean feature variances, or absolute with an 'a' in front "
        f"(default: {','.join(str(one).replace('absolute ', 'a') for one in DEFAULT_EPSILONS)})",
    )
    parser.add_argument("--fit-images", metavar="N", type=positive, help="default: 300, or all of a training folder")
    add_smoothing(parser)
    parser.add_argument(
        "--pixel-grid",
        metavar="N",
        type=int,
        default=default.pixel_grid,
        help="cells per side on which pixels are compared, 0 for none (default: %(default)s)",
    )
    parser.add_argument("--rounds", metavar="N", type=int, help="timed calls per case (default: 100; headline 30)")
    parser.add_argument("--quick", action="store_true", help="fewer dimensions and timed calls")
    parser.add_argument(
        "--headline", action="store_true", help="Wide ResNet-50-2, selection at 550 against JL at 150: time and bytes"
    )
    parser.add_argument("--images", metavar="DIR", type=Path, help="frames for --headline")
    parser.add_argument("--plots", metavar="DIR", type=Path, help="draw PNG files into this folder")
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench jl`."""
    if args.headline:
        return _headline(args)
    if args.data is None:
        raise InputError("bench jl needs --data: elpv-mono, elpv-poly or a folder in the MVTec layout")
    environment, null = describe(), null_overhead()
    outcome = study.run(_study(args), say)
    if args.json:
        write_json(args.json, study.as_json(outcome, environment, null))
    sys.stdout.write(heading(environment, null) + "\n\n" + text.describe(outcome))
    for line in unstable(text.timings(outcome.costs)):
        say(line)
    if args.plots:
        args.plots.mkdir(parents=True, exist_ok=True)
        for path in study.draw(outcome, args.plots):
            say(f"drew {path}")
    return 0


def _headline(args: argparse.Namespace) -> int:
    if args.images is None:
        raise InputError("bench jl --headline needs --images: a folder of frames")
    environment, null = describe(), null_overhead()
    frames = [read_image(path) for path in list_images(args.images)[:HEADLINE_FRAMES]]
    image_size = 224 if args.image_size is None else args.image_size
    found = headline.measure(
        frames,
        image_size=image_size,
        sigma_px=args.smoothing_px,
        threads=args.threads,
        rounds=args.rounds or 30,
    )
    if args.json:
        meaning = {
            "step": "feature maps (packed) or embeddings (fp32 inverse) to distances; packed also smooths and takes "
            "the maximum",
            "frame": "frame in memory to score: resize, network, step",
            "faster_frame": "ratio of median network + median step",
            "claimed": f"{headline.CLAIMED_FASTER:g} times faster, {headline.CLAIMED_SMALLER:g} times smaller",
        }
        settings = {
            "weights": "random",
            "image_size_px": image_size,
            "smoothing_px": args.smoothing_px,
            "threads": args.threads,
            "frames": len(frames),
        }
        write_json(
            args.json,
            result("jl headline", environment, settings=settings, meaning=meaning, results=asdict(found), null=null),
        )
    sys.stdout.write(heading(environment, null) + "\n\n" + text.describe_headline(found))
    return 0


def _study(args: argparse.Namespace) -> study.Study:
    asked = study.Study(data=args.data)
    if args.quick:
        asked = study.quick(asked)
    return replace(asked, **chosen(study.Study, args))


def _list(numbers: tuple[int, ...]) -> str:
    return ",".join(str(number) for number in numbers)


def _kind(word: str) -> str:
    if word not in KINDS:
        raise argparse.ArgumentTypeError(f"{word}; expected some of {', '.join(KINDS)}")
    return word


def _epsilon(word: str) -> Epsilon:
    return Epsilon(float(word.removeprefix("a")), relative=not word.startswith("a"))
