"""Our side of the comparison: bundles that are named, or one fitted here for each precision and type of factors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flawline.benchmarks.fits import fit_from_float
from flawline.benchmarks.peers.cases import OURS, Case, Execution, Failure, our_cases
from flawline.calibration.statistics import FactorType, StatisticsOptions
from flawline.export.fit import fit_bundle
from flawline.export.fitting import Say
from flawline.export.options import FitOptions
from flawline.export.parity import ParityError
from flawline.runtime.errors import EngineError, MissingExtraError

FACTOR_TYPES: tuple[FactorType, ...] = (StatisticsOptions.factors,)
"""Of what is fitted, unless others are asked for."""


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


def from_bundles(bundles: Sequence[Path], executions: Sequence[Execution]) -> Ours:
    """Bundles that were fitted before; see `our_cases`."""
    return Ours(bundles, *our_cases(bundles, executions))


def fit_ours(
    images: Sequence[Path],
    folder: Path,
    options: FitOptions,
    executions: Sequence[Execution],
    factor_types: Sequence[FactorType],
    say: Say = lambda line: None,
) -> Ours:
    """Fits one float detector per type of factors, and from it one bundle for each other precision.

    Args:
        images: Good images.
        folder: For the bundles.
        options: How to fit, in fp32; the type of factors is set here.
        executions: Precisions with their engines.
        factor_types: Types of the stored factors.
        say: Takes each line that tells what is being done.

    Raises:
        See `fit_bundle`; but what an engine, a missing library or the parity gate refuses is among the failures.
    """
    entered = []
    for factors in dict.fromkeys(factor_types):
        statistics = replace(options.statistics, factors=factors)
        entered.append(_fit_type(images, folder, replace(options, statistics=statistics), executions, say))
    return Ours(
        [path for ours in entered for path in ours.bundles],
        [case for ours in entered for case in ours.cases],
        [failure for ours in entered for failure in ours.failures],
        any(ours.refused for ours in entered),
    )


def _fit_type(
    images: Sequence[Path], folder: Path, options: FitOptions, executions: Sequence[Execution], say: Say
) -> Ours:
    """Every precision with one type of factors."""
    bundles: list[Path] = []
    cases: list[Case] = []
    failures: list[Failure] = []
    refused = False
    factors = options.statistics.factors
    floats = folder / f"fp32-{factors}.flaw"
    for precision in dict.fromkeys(("fp32", *(precision for precision, _ in executions))):
        path = folder / f"{precision}-{factors}.flaw"
        try:
            if path == floats:
                fit_bundle(images, floats, options, say)
            else:
                fit_from_float(floats, precision, images, path, threads=options.threads, say=say)
        except (MissingExtraError, EngineError, ParityError) as error:
            failures.append(Failure(f"{OURS} {precision}, {factors} factors", str(error)))
            refused = refused or isinstance(error, ParityError)
            if path == floats:
                # Nothing is left to make the others from.
                break
            continue
        chosen = [execution for execution in executions if execution[0] == precision]
        if chosen:
            bundles.append(path)
            cases += our_cases([path], chosen)[0]
    return Ours(bundles, cases, failures, refused)
