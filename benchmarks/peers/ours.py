"""Our side of the comparison: bundles that are named, or one fitted here for each precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flawline.benchmarks.fits import fit_from_float
from flawline.benchmarks.peers.cases import Case, Failure, Way, our_cases
from flawline.export.fit import fit_bundle
from flawline.export.fitting import Say
from flawline.export.options import FitOptions
from flawline.export.parity import ParityError
from flawline.runtime.errors import EngineError, MissingExtraError


@dataclass(frozen=True)
class Ours:
    """What we enter.

    Attributes:
        bundles: Folders of bundles.
        cases: Every way to run them.
        failures: Precisions that are missing, and why.
        refused: Whether the parity gate refused one of those.
    """

    bundles: Sequence[Path]
    cases: list[Case]
    failures: list[Failure]
    refused: bool = False


def from_bundles(bundles: Sequence[Path], ways: Sequence[Way]) -> Ours:
    """Bundles that were fitted before; see `our_cases`."""
    return Ours(bundles, *our_cases(bundles, ways))


def fit_ours(
    images: Sequence[Path], folder: Path, options: FitOptions, ways: Sequence[Way], say: Say = lambda line: None
) -> Ours:
    """Fits the float detector, and from it one bundle for each other precision.

    Args:
        images: Good images.
        folder: For the bundles.
        options: How to fit, in fp32.
        ways: Precisions with their engines.
        say: Takes each line that tells what is being done.

    Raises:
        See `fit_bundle`; but what an engine, a missing library or the parity gate refuses is among the failures.
    """
    bundles: list[Path] = []
    cases: list[Case] = []
    failures: list[Failure] = []
    refused = False
    floats = folder / "fp32.flaw"
    for precision in dict.fromkeys(("fp32", *(precision for precision, _ in ways))):
        path = folder / f"{precision}.flaw"
        try:
            if path == floats:
                fit_bundle(images, floats, options, say)
            else:
                fit_from_float(floats, precision, images, path, threads=options.threads, say=say)
        except (MissingExtraError, EngineError, ParityError) as error:
            failures.append(Failure(f"flawline {precision}", str(error)))
            refused = refused or isinstance(error, ParityError)
            if path == floats:
                # Nothing is left to make the others from.
                break
            continue
        chosen = [way for way in ways if way[0] == precision]
        if chosen:
            bundles.append(path)
            cases += our_cases([path], chosen)[0]
    return Ours(bundles, cases, failures, refused)
