"""Measures on an NVIDIA GPU: kernels against the fastest read of the same bytes, and whole frames.

Each launch takes the next of several models, which together exceed the cache four times. Launches of a series follow each
other in a CUDA graph, so that Python is not measured; cases take turns. The features of whole frames come from torch, with
random weights. Needs the driver, PyCUDA, a compiler of CUDA or built kernels, and for frames a torch that sees the GPU.
Wants a quiet GPU.

  flawline bench gpu --json gpu.json
  flawline bench gpu --parts kernels --dims 100,150 --factors float16
"""

import argparse
import functools
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flawline.benchmarks.commands.options import add_output, one_of, positive, say, several
from flawline.benchmarks.environment import Environment, describe
from flawline.benchmarks.gpu import distances, frames, images, text
from flawline.benchmarks.gpu.machine import Gpu, describe_gpu
from flawline.benchmarks.record import heading, result, unstable
from flawline.benchmarks.roofline.steps import FRAME_PX, HEADLINE_NETWORK, JL, SELECTION, SIGMA_PX
from flawline.benchmarks.tables import write_json
from flawline.benchmarks.timing import Timing
from flawline.calibration.projections import Kind
from flawline.export.features import open_backbone
from flawline.runtime.gpu.device import Device

PARTS = ("kernels", "images", "frames")
FACTORS = ("float16", "int8", "float32")
# The networks of the comparison, and what reduces their channels: a frame must stay below a millisecond, and JL is held
# against selection.
FRAMES: tuple[tuple[str, Kind, int], ...] = (
    ("resnet18", "gaussian", 100),
    (HEADLINE_NETWORK, "select", SELECTION),
    (HEADLINE_NETWORK, "gaussian", JL),
)
BEYOND_CACHE = 4
_SETTINGS = ("parts", "dims", "factors", "map_size", "frame_px", "precision", "rounds", "runs")
MEANING = {
    "timings": "nanoseconds per launch; a sample is the mean of a series of launches in a CUDA graph, each on the next of "
    "`copies` models",
    "kernel": "feature maps of one frame, three scales, to distances; of images: see `what`",
    "kernel, 8 frames": "a batch that shares each factor",
    "read": "every byte of the factors, or as many as a kernel on images moves, read once by the fastest of nine layouts",
    "projection inside": "maps of 448 channels, projected by an fp16 matrix in the kernel",
    "share_of_read": "p50 of read over p50 of kernel; the kernel also reads means and maps and writes distances",
    "bytes": "factors, means, feature maps and distances of one frame; of images: what is read and written of one",
    "end_to_end": "nanoseconds on the host's clock, from uint8 frame to score and map in the host's memory",
    "stages": "nanoseconds of the same frames; by events of the GPU but for load, the copy into pinned memory",
    "times_the_read": "p50 of a kernel on images over p50 of read",
    "exceeds_cache": "whether all copies are together larger than four times the second-level cache",
    "graph_refused": "why a frame was launched piece by piece; null for a CUDA graph",
    "gpu_bytes": "what the detector allocates on the GPU, counted; without what torch holds",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench gpu`."""
    parser.add_argument(
        "--parts", metavar="PART,...", type=several(one_of(PARTS)), default=PARTS, help=f"default: {','.join(PARTS)}"
    )
    parser.add_argument(
        "--dims",
        metavar="D,...",
        type=several(positive),
        default=(100, JL, 448, SELECTION),
        help="default: 100,150,448,550",
    )
    parser.add_argument(
        "--factors",
        metavar="TYPE,...",
        type=several(one_of(FACTORS)),
        default=FACTORS,
        help=f"default: {','.join(FACTORS)}",
    )
    parser.add_argument(
        "--map-size", metavar="N", type=positive, default=56, help="height and width of the map (default: %(default)s)"
    )
    parser.add_argument(
        "--frame-px",
        metavar="N",
        type=positive,
        default=FRAME_PX,
        help="of the kernels on images, height and width (default: %(default)s)",
    )
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16", help="of torch (default: %(default)s)")
    parser.add_argument("--rounds", metavar="N", type=positive, default=50, help="timed series (default: %(default)s)")
    parser.add_argument("--runs", metavar="N", type=positive, default=2000, help="timed frames (default: %(default)s)")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench gpu`."""
    environment, device = describe(), Device()
    gpu = describe_gpu(device)
    report = _Report(args, environment, gpu)
    report.tell(heading(environment), gpu.summary())
    for part in args.parts:
        _MEASURE[part](args, device, BEYOND_CACHE * gpu.l2_bytes, report)
    for line in unstable(report.timings):
        say(line)
    return 0


@dataclass
class _Report:
    """What was measured so far: told and written at once, so that a run that is cut off has not been for nothing."""

    args: argparse.Namespace
    environment: Environment
    gpu: Gpu
    results: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)

    def tell(self, *lines: str) -> None:
        """Prints lines."""
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    def keep(self, part: str, results: Any, timings: Mapping[str, Timing]) -> None:
        """Writes what there is of a part, with the parts before it."""
        self.results[part] = results
        self.timings |= timings
        if self.args.json:
            settings = {name: getattr(self.args, name) for name in _SETTINGS}
            record = result("gpu", self.environment, settings=settings, meaning=MEANING, results=self.results)
            write_json(self.args.json, record | {"gpu": asdict(self.gpu)})


def _kernels(args: argparse.Namespace, device: Device, beyond_bytes: int, report: _Report) -> None:
    found = []
    for factors in args.factors:
        for dimension in args.dims:
            say(f"Mahalanobis step, d {dimension}, {factors}")
            one = distances.measure(
                device,
                dimension,
                factors,
                map_size=args.map_size,
                beyond_bytes=beyond_bytes,
                rounds=args.rounds,
                inside=factors == FACTORS[0] and dimension <= sum(distances.CHANNELS),
            )
            found.append(one)
            report.keep(
                "kernels",
                [asdict(each) | _ratios(each) for each in found],
                {f"d {dimension} {factors}, {name}": timing for name, timing in one.timings.items()},
            )
    by_case = {(one.factors, one.dimension): one for one in found}
    savings = [
        text.saving(by_case[factors, SELECTION], by_case[factors, JL])
        for factors in args.factors
        if {(factors, SELECTION), (factors, JL)} <= by_case.keys()
    ]
    report.tell("", *text.steps(found), *savings)


def _images(args: argparse.Namespace, device: Device, beyond_bytes: int, report: _Report) -> None:
    say("kernels on images")
    found = []
    for one in images.measure(
        device, args.frame_px, args.map_size, SIGMA_PX, beyond_bytes=beyond_bytes, rounds=args.rounds
    ):
        found.append(one)
        report.keep(
            "images",
            [
                asdict(each) | {"bytes_per_second": each.bytes_per_second, "times_the_read": each.times_the_read}
                for each in found
            ],
            {f"{one.name}, {name}": timing for name, timing in one.timings.items()},
        )
    report.tell("", *text.on_images(found))


def _frames(args: argparse.Namespace, device: Device, beyond_bytes: int, report: _Report) -> None:
    say("whole frames")
    backbones = functools.cache(
        lambda name: open_backbone(name, layers=None, weights="random", image_size=None, mean=None, std=None, seed=0)
    )
    cases = [
        frames.Case(network, projection, dimension, args.factors[0], args.precision, graph)
        for network, projection, dimension in FRAMES
        for graph in (True, False)
    ]
    found = frames.measure(device, backbones, cases, rounds=args.runs)
    report.keep("frames", [asdict(one) for one in found], {text.frame_name(one): one.end_to_end for one in found})
    report.tell("", *text.whole_frames(found))


_MEASURE = {"kernels": _kernels, "images": _images, "frames": _frames}


def _ratios(one: distances.Measured) -> dict[str, float]:
    return {
        "bytes_per_second": one.bytes_per_second,
        "share_of_read": one.share_of_read,
        "cost_of_batch": one.cost_of_batch,
    }
