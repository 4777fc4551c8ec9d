"""Shows what seams do: the same web in strips of several heights and as one image, and a flaw that moves across a seam.

Real web with dark flaws on it is scored in strips of each of --heights and as one image; maps and regions are compared. Then a dark flaw is moved line
by line across the seam between two strips, and its peak is taken three ways: on the web as one image, in strips with context as
the stream has, and in strips each scored by itself.

  flawline bench seams fabric.flaw --lines web.png --plot seams.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from flawline.benchmarks import plots
from flawline.benchmarks.commands.options import add_output, positive, say, several
from flawline.benchmarks.environment import describe
from flawline.benchmarks.record import detector_facts, heading, result
from flawline.benchmarks.stream.seams import FLAW_PX, Seams, with_flaws
from flawline.benchmarks.tables import table, write_json
from flawline.runtime.bundle import read
from flawline.runtime.engines import fastest_engine
from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image
from flawline.runtime.progress import progress

MEANING = {
    "relative_error": "largest difference between the maps of the web in strips and as one image, over the largest value",
    "same_defects": "as many regions above the threshold, each box within a pixel",
    "whole": "peak of the flaw on the web as one image",
    "strips": "its peak in strips with context",
    "naive": "its peak in strips each scored by itself, as pictures",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench seams`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="made by `flawline fit --web`")
    parser.add_argument(
        "--lines", type=Path, metavar="IMAGE", required=True, help="real good lines, as an image of the web"
    )
    parser.add_argument(
        "--heights", metavar="N,...", type=several(positive), default=(64, 256, 512), help="default: 64,256,512"
    )
    parser.add_argument(
        "--web-lines", metavar="N", type=positive, default=1024, help="lines of the web that are compared"
    )
    parser.add_argument("--width", metavar="PX", type=positive, default=256, help="pixels of the middle of its lines")
    parser.add_argument(
        "--seam-height", metavar="N", type=positive, default=64, help="strips that the flaw moves across"
    )
    parser.add_argument("--step", metavar="N", type=positive, default=1, help="lines from place to place (default: 1)")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="draw the curves")
    parser.add_argument("--backend", default="auto", help="engine (default: the fastest)")
    parser.add_argument("--precision", help="of the network (default: the bundle's)")
    parser.add_argument("--threads", metavar="N", type=positive, default=1, help="default: %(default)s")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Compares, moves and prints."""
    environment = describe()
    bundle = read(args.bundle).select(args.precision)
    image = read_image(args.lines)
    strip = args.seam_height
    if len(image) < max(args.web_lines, 3 * strip) or image.shape[1] < args.width or image.ndim != 2:
        raise InputError(
            f"{args.lines} is {image.shape}; expected grey, {max(args.web_lines, 3 * strip)} lines or more of {args.width} px or more"
        )
    backend = fastest_engine(bundle, threads=args.threads) if args.backend == "auto" else args.backend
    left = (image.shape[1] - args.width) // 2
    piece = np.ascontiguousarray(image[: args.web_lines, left : left + args.width])
    flaw = np.full((FLAW_PX, FLAW_PX), max(0, int(piece.mean()) - 60), np.uint8)
    flawed = with_flaws(piece, flaw)
    seams = Seams(bundle, args.width, backend=backend, threads=args.threads)
    try:
        say("the web as one image")
        whole = seams.map(flawed)
        exact = [
            seams.exactness(flawed, height, whole) for height in progress(args.heights, label="strips", unit="height")
        ]
        places = range(strip - strip // 2, strip + strip // 2, args.step)
        moved = [
            seams.moved(piece[: 3 * strip], flaw, line, strip)
            for line in progress(places, label="moving", unit="place")
        ]
    finally:
        seams.close()
    sys.stdout.write(heading(environment) + "\n")
    sys.stdout.write(
        table(
            ("strips of", "largest error of the map", "regions", "the same"),
            [
                (each.strip_lines, f"{each.relative_error:.1e}", each.defects, "yes" if each.same_defects else "NO")
                for each in exact
            ],
        )
        + "\n"
    )
    errors = {
        name: max(abs(getattr(each, name) - each.whole) / each.whole for each in moved) for name in ("strips", "naive")
    }
    peaks = [each.whole for each in moved]
    sys.stdout.write(
        f"a flaw of {FLAW_PX} px moved over lines {places[0]} to {places[-1]}, seam at {strip}: its peak on the whole web is "
        f"{min(peaks):.3g} to {max(peaks):.3g}; in strips with context it is off by at most {errors['strips']:.1e}, in strips by "
        f"themselves by {errors['naive']:.1e}\n"
    )
    if args.plot is not None:
        x = [float(each.line) for each in moved]
        curves = [
            plots.Curve(label, x, [getattr(each, name) for each in moved])
            for label, name in (
                ("whole web", "whole"),
                ("strips with context", "strips"),
                ("strips by themselves", "naive"),
            )
        ]
        plots.peak_against_line(args.plot, curves, seam=strip, title="A flaw that moves across a seam")
    if args.json is not None:
        settings = {
            **{name: value for name, value in vars(args).items() if isinstance(value, str | int | float)},
            "heights": list(args.heights),
            "lines": args.lines.name,
            "backend": backend,
            "detector": detector_facts(bundle.manifest),
        }
        results = {
            "exactness": [each._asdict() for each in exact],
            "moved": [each._asdict() for each in moved],
            "largest_error": errors,
        }
        write_json(args.json, result("seams", environment, settings=settings, meaning=MEANING, results=results))
    return 0
