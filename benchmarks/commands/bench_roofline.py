"""Computes what devices could do at best, from their data sheets: nothing is measured, and no GPU is needed.

The floor of a step is the larger of bytes over bandwidth and operations over rate, for the Mahalanobis step with fp32
inverses and with packed triangles, the network, and the Proximally Sensitive Error.

  flawline bench roofline
  flawline bench roofline --device orin-nx,thor --dims 100,150 --batch 1,8
"""

import argparse
import sys
from dataclasses import asdict

from flawline.benchmarks.commands.options import add_output, positive, several
from flawline.benchmarks.roofline import text
from flawline.benchmarks.roofline.devices import DEVICES
from flawline.benchmarks.roofline.steps import Step, ratios, steps
from flawline.benchmarks.tables import write_json
from flawline.export.commands.options import words
from flawline.runtime.errors import InputError

ALL = "all"
MEANING = {
    "floors_s": "seconds of the batch, the larger of bytes over bandwidth and operations over rate",
    "bound": "which of the two it is",
    "bytes": "each byte once; of a network the weights, the frame and the projected maps",
    "operations": "a multiply-add counts as two",
    "ratios": "selection at 550 dimensions over JL at 150: bytes of the factors, floor of the step, floors of network "
    "and step",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench roofline`."""
    parser.add_argument(
        "--device", metavar="NAME,...", type=words, default=(ALL,), help=f"{', '.join(DEVICES)}, or all (default)"
    )
    parser.add_argument(
        "--dims",
        metavar="D,...",
        type=several(positive),
        default=(100, 150, 448, 550),
        help="default: 100,150,448,550",
    )
    parser.add_argument("--batch", metavar="B,...", type=several(positive), default=(1, 8), help="default: 1,8")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench roofline`."""
    names = tuple(DEVICES) if ALL in args.device else args.device
    if unknown := set(names) - set(DEVICES):
        raise InputError(f"--device {','.join(sorted(unknown))}: expected {', '.join(DEVICES)} or {ALL}")
    devices = [DEVICES[name] for name in names]
    found = list(steps(args.dims, args.batch))
    saved = [list(ratios(device)) for device in devices]
    if args.json:
        written = {
            "benchmark": "roofline",
            "computed": "from data sheets, not measured",
            "settings": {"devices": list(names), "dimensions": list(args.dims), "batches": list(args.batch)},
            "meaning": MEANING,
            "devices": [asdict(device) for device in devices],
            "results": {
                "steps": [_flat(step, names) for step in found],
                "ratios": {name: [asdict(one) for one in own] for name, own in zip(names, saved, strict=True)},
            },
        }
        write_json(args.json, written)
    sys.stdout.write("\n".join(text.told(devices, found, saved)) + "\n")
    return 0


def _flat(step: Step, names: tuple[str, ...]) -> dict[str, object]:
    own = {"group": step.group, "name": step.name, "dimension": step.dimension, "batch": step.batch}
    floors = {name: step.work.floor_s(DEVICES[name]) for name in names}
    bounds = {name: step.work.bound(DEVICES[name]) for name in names}
    return own | asdict(step.work) | {"floors_s": floors, "bound": bounds}
