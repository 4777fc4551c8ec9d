"""Repeats the experiments of the paper on the Proximally Sensitive Error, its claims and what was found side by side.

Detection: principal components of good images, the largest error of a pixel as score; five labelled images of each kind
choose the number of components, and for PSE its sigma, and are left out of the evaluation. Pre-training: an autoencoder
with MSE or PSE on digits in noise, its encoder reused to classify.

  flawline bench paper pse --data DIR
  flawline bench paper pse --folder mvtec/bottle --folder mvtec/cable --skip-pretraining
  flawline bench paper pse --data DIR --skip-detection --full

DIR holds magnetic_tile/ (MVTec layout), aitex/ (streams.json, good/ROLL, defect and mask) and mnist/mnist.npz.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flawline.benchmarks.commands.options import add_output, add_threads, one_of, positive, say, several
from flawline.benchmarks.datasets import open_dataset, read_mvtec
from flawline.benchmarks.environment import Environment, describe
from flawline.benchmarks.paper import pse_text
from flawline.benchmarks.paper.aitex_tiles import TileSet
from flawline.benchmarks.paper.labelled_sets import SIDE_PX, FileSet, LabelledSet
from flawline.benchmarks.paper.pse_detection import ERRORS, DetectionStudy, Draw, detect, summarise
from flawline.benchmarks.paper.pse_pretraining import FULL, Accuracy, PretrainingStudy, points, pretrain
from flawline.benchmarks.record import result
from flawline.benchmarks.tables import write_json
from flawline.export.commands.options import chosen
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import use_threads

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[fit]'")

# Roll 00 has four flawed tiles on the web in a fold.
ROLLS = ("02",)
SETS = ("elpv-mono", "elpv-poly", "magnetic-tile", "aitex")
MEANING = {
    "mse, pse": "average precision over the evaluated images, defective ones as positives; mean over draws",
    "difference": "PSE less MSE, draw by draw or run by run; mean",
    "_std": "standard deviation over draws, or over runs, with n - 1",
    "labelled": "the images that chose; none of them is fitted or evaluated",
    "labelled_average_precision": "of what was chosen, on the images that chose",
    "best_average_precision": "at the best of the grid for the evaluated images: a bound for any choice, no result",
    "fitted, good, defective": "images fitted, and evaluated without a flaw and with one",
    "accuracy": "share of test images in the right class; by loss of the pre-training, 'none' without it",
    "active": "share of hidden units that answer to any of 500 images before the classifier is trained",
    "images": "that the autoencoder was pre-trained on",
    "paper": "what the paper has, on MVTec AD",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench paper pse`."""
    detection, pretraining = DetectionStudy(), PretrainingStudy()
    parser.add_argument("--data", metavar="DIR", type=Path, help="with magnetic_tile/, aitex/ and mnist/mnist.npz")
    add_threads(parser)
    add_output(parser)
    group = parser.add_argument_group("detection")
    group.add_argument("--skip-detection", action="store_true", help="pre-training alone")
    group.add_argument(
        "--sets",
        metavar="S,...",
        type=several(one_of(SETS)),
        help=f"of {','.join(SETS)} (default: all, or none with --folder)",
    )
    group.add_argument(
        "--folder",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="a set in the MVTec layout with train/good; one category, or one for each kind of flaw with --per-kind; several times",
    )
    group.add_argument("--per-kind", action="store_true", help="each kind of flaw of a --folder is a category")
    group.add_argument("--shots", metavar="N", type=positive, default=detection.shots, help="default: %(default)s")
    group.add_argument("--draws", metavar="N", type=positive, default=detection.draws, help="default: %(default)s")
    group.add_argument("--seed", metavar="N", type=_seed, default=0, help="of the first draw and run (default: 0)")
    group = parser.add_argument_group("pre-training")
    group.add_argument("--skip-pretraining", action="store_true", help="detection alone")
    group.add_argument(
        "--full", action="store_true", help="all images, larger bottlenecks, more steps and runs: half a day"
    )
    for name, what, default in (
        ("bottlenecks", "compared at the middle number of images", pretraining.bottlenecks),
        ("images", "to pre-train on, compared at the middle bottleneck", pretraining.images),
    ):
        shown = ",".join(map(str, default))
        group.add_argument(f"--{name}", metavar="N,...", type=several(positive), help=f"{what} (default: {shown})")
    for name, what, number in (
        ("steps", "of each pre-training", pretraining.steps),
        ("labelled", "images to train the classifier on", pretraining.labelled),
        ("classifier-epochs", "at most", pretraining.classifier_epochs),
        ("tested", "images", pretraining.tested),
        ("runs", "", pretraining.runs),
    ):
        group.add_argument(f"--{name}", metavar="N", type=positive, help=f"{what} (default: {number})".strip())
    group.add_argument("--noise", metavar="P", type=float, help=f"share of the pixels (default: {pretraining.noise})")


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench paper pse`."""
    if args.skip_detection and args.skip_pretraining:
        raise InputError("--skip-detection and --skip-pretraining leave nothing to do; give one of them at most")
    detection = DetectionStudy(**chosen(DetectionStudy, args))
    pretraining = replace(FULL if args.full else PretrainingStudy(), **chosen(PretrainingStudy, args))
    report = _Report(args.json, describe(), detection, pretraining, args.threads)
    with _limited(args.threads):
        # All data before any long work, so that what is missing is missed at once.
        accuracies = None if args.skip_pretraining else pretrain(_data(args, "pre-training"), pretraining)
        sets = [] if args.skip_detection else list(_sets(args))
        if sets:
            _detect(sets, report)
        if accuracies is not None:
            _pretrain(accuracies, report)
    return 0


@dataclass
class _Report:
    """What has been measured so far, and where it is written."""

    path: Path | None
    environment: Environment
    detection: DetectionStudy
    pretraining: PretrainingStudy
    threads: int
    printed: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        if self.path is not None:
            settings = self.settings | {"threads": self.threads}
            write_json(
                self.path,
                result("paper pse", self.environment, settings=settings, meaning=MEANING, results=self.results),
            )

    def print(self, lines: Iterator[str]) -> None:
        if not self.printed:
            # Without the warnings of a heading, which are of times.
            sys.stdout.write(self.environment.summary() + "\n")
        self.printed = True
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
        sys.stdout.flush()


def _sets(args: argparse.Namespace) -> Iterator[LabelledSet]:
    for name in args.sets or (() if args.folder else SETS):
        if name == "magnetic-tile":
            folder = _data(args, name) / "magnetic_tile"
            yield FileSet(read_mvtec(folder), per_kind=True, seed=args.seed)
        elif name == "aitex":
            for roll in ROLLS:
                yield TileSet(_data(args, name) / "aitex", roll, seed=args.seed)
        else:
            yield FileSet(open_dataset(name), per_kind=False, seed=args.seed)
    for folder in args.folder:
        yield FileSet(read_mvtec(folder), per_kind=args.per_kind, seed=args.seed)


def _data(args: argparse.Namespace, what: str) -> Path:
    if args.data is None:
        raise InputError(f"no --data DIR for {what}; expected a folder with magnetic_tile/, aitex/ and mnist/mnist.npz")
    return Path(args.data)


def _detect(sets: list[LabelledSet], report: _Report) -> None:
    draws: list[Draw] = []
    report.settings["detection"] = asdict(report.detection) | {"sets": [one.name for one in sets], "side_px": SIDE_PX}
    for labelled in sets:
        for draw in detect(labelled, report.detection):
            draws.append(draw)
            say(
                f"{draw.category}, draw {draw.number}: MSE {draw.mse.average_precision:.3f}, "
                f"PSE {draw.pse.average_precision:.3f}"
            )
        report.results["detection"] = {
            "paper": pse_text.PAPER_DETECTION,
            "categories": [asdict(one) for one in summarise(draws)],
            "draws": [draw._asdict() | {name: getattr(draw, name)._asdict() for name in ERRORS} for draw in draws],
        }
        report.write()
    report.print(pse_text.detection_text(summarise(draws), report.detection))


def _pretrain(accuracies: Iterator[Accuracy], report: _Report) -> None:
    found: list[Accuracy] = []
    report.settings["pretraining"] = asdict(report.pretraining)
    for one in accuracies:
        found.append(one)
        trained = "not pre-trained" if one.loss == "none" else f"{one.images} images, {one.loss}"
        say(f"run {one.run}, bottleneck {one.bottleneck}, {trained}: accuracy {one.accuracy:.3f}")
        report.results["pretraining"] = {
            "points": [point._asdict() for point in points(found, report.pretraining)],
            "runs": [accuracy._asdict() for accuracy in found],
        }
        report.write()
    report.print(pse_text.pretraining_text(points(found, report.pretraining), report.pretraining))


@contextmanager
def _limited(threads: int) -> Iterator[None]:
    """Lets the libraries compute with so many threads."""
    from flawline.detectors.torch_threads import torch_threads

    use_threads(threads)
    with torch_threads(threads), threadpoolctl.threadpool_limits(threads, user_api="blas"):
        yield


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 60:
        raise argparse.ArgumentTypeError(f"'{text}'; expected a whole number from 0 to 2^60")
    return int(text)
