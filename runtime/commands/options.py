"""Options that commands on the device share."""

import argparse

from flawline.runtime.map_kinds import MAP_KINDS
from flawline.runtime.precisions import PRECISIONS


def add_engine(parser: argparse._ActionsContainer) -> None:
    """Declares what runs a bundle: `backend`, `precision` and `threads`, as `Detector.open` takes them."""
    parser.add_argument(
        "--backend",
        metavar="NAME",
        default="auto",
        help="engine: onnxruntime, openvino, tensorrt, or auto for one that gives the golden scores, the preferred unless another is clearly "
        "faster (default: %(default)s)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of the network, one that the bundle holds (default: the bundle's own)"
    )
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="default: %(default)s")


def add_fallback(parser: argparse._ActionsContainer) -> None:
    """Declares `fallback`, as `Detector.open` takes it."""
    parser.add_argument(
        "--fallback", action="store_true", help="go on with an engine on the CPU where a GPU cannot be had or fails"
    )


def add_map(parser: argparse._ActionsContainer) -> None:
    """Declares `map`, as `Detector.open` takes it."""
    parser.add_argument(
        "--map",
        choices=MAP_KINDS,
        help="kind of anomaly map or score, one that the bundle of a reconstruction detector or a classifier offers "
        "(default: the bundle's own)",
    )
