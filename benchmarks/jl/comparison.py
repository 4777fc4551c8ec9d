"""Johnson-Lindenstrauss projections against random selection: paired by seed, with intervals, in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.jl.sweep import JL_KINDS, Case, Epsilon
from flawline.calibration.projections import Kind
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = LazyModule("scipy.stats", "pip install 'flawline[bench]'")

CONFIDENCE = 0.95
VALIDATED = "chosen on the other half"


@dataclass(frozen=True)
class Measured:
    """Accuracy of one projection at one epsilon.

    Attributes:
        case: The projection.
        epsilon: The regularisation.
        whole: Metric over all test images.
        by_half: Metric over each half of the test images.
    """

    case: Case
    epsilon: Epsilon
    whole: float
    by_half: tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """A metric over seeds.

    Attributes:
        kind: Kind of projection.
        dimension: Projected dimension d.
        epsilon: The regularisation, in words.
        mean: Mean over seeds.
        std: Standard deviation over seeds (n - 1); None for a single one.
        seeds: Number of seeds.
    """

    kind: Kind
    dimension: int
    epsilon: str
    mean: float
    std: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """A JL projection less random selection, paired by seed.

    Attributes:
        kind: Kind of JL projection.
        dimension: Projected dimension d.
        epsilon: The regularisation, in words.
        mean: Mean difference; positive where JL is better.
        low: Lower end of the 95 % t interval of the mean.
        high: Upper end.
        seeds: Number of pairs.
    """

    kind: Kind
    dimension: int
    epsilon: str
    mean: float
    low: float
    high: float
    seeds: int

    @property
    def winner(self) -> str | None:
        """Who is better if the interval excludes zero: JL, selection, or None."""
        return "JL" if self.low > 0 else "selection" if self.high < 0 else None


@dataclass(frozen=True)
class Policy:
    """One way to choose epsilon, and the metric of each projection under it.

    Attributes:
        epsilon: The regularisation, in words.
        values: Metric by projection.
        chosen: Epsilons by (kind, dimension) that validation chose on either half; empty if epsilon is fixed.
    """

    epsilon: str
    values: dict[Case, float]
    chosen: dict[tuple[Kind, int], tuple[str, str]]


def fixed(measured: Sequence[Measured], epsilon: Epsilon) -> Policy:
    """One epsilon for all, measured over all test images."""
    return Policy(str(epsilon), {one.case: one.whole for one in measured if one.epsilon == epsilon}, {})


def validated(measured: Sequence[Measured]) -> Policy:
    """Epsilon per kind and dimension from one half of the labelled images, measured on the other, both ways, averaged.

    The choice maximises the mean over seeds, so that all seeds of a kind and dimension share one epsilon, and no image
    is measured with an epsilon that it helped to choose.
    """
    groups: dict[tuple[Kind, int], dict[Epsilon, list[Measured]]] = {}
    for one in measured:
        groups.setdefault((one.case.kind, one.case.dimension), {}).setdefault(one.epsilon, []).append(one)
    values: dict[Case, float] = {}
    chosen: dict[tuple[Kind, int], tuple[str, str]] = {}
    for key, by_epsilon in groups.items():
        best = [
            max(by_epsilon, key=lambda epsilon: float(np.mean([one.by_half[half] for one in by_epsilon[epsilon]])))
            for half in (0, 1)
        ]
        chosen[key] = (str(best[0]), str(best[1]))
        for on_second, on_first in zip(by_epsilon[best[0]], by_epsilon[best[1]], strict=True):
            values[on_second.case] = (on_second.by_half[1] + on_first.by_half[0]) / 2
    return Policy(VALIDATED, values, chosen)


def spreads(policy: Policy) -> list[Spread]:
    """Mean and standard deviation over seeds, by kind and dimension."""
    groups: dict[tuple[Kind, int], list[float]] = {}
    for case, value in policy.values.items():
        groups.setdefault((case.kind, case.dimension), []).append(value)
    return [
        Spread(
            kind=kind,
            dimension=dimension,
            epsilon=policy.epsilon,
            mean=float(np.mean(values)),
            std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            seeds=len(values),
        )
        for (kind, dimension), values in groups.items()
    ]


def differences(policy: Policy) -> list[Difference]:
    """Each JL kind less selection at equal dimension and seed; needs two seeds or more."""
    found = []
    selection = {(case.dimension, case.seed): value for case, value in policy.values.items() if case.kind == "select"}
    for kind in JL_KINDS:
        by_dimension: dict[int, list[float]] = {}
        for case, value in policy.values.items():
            pair = selection.get((case.dimension, case.seed))
            if case.kind == kind and pair is not None:
                by_dimension.setdefault(case.dimension, []).append(value - pair)
        for dimension, values in by_dimension.items():
            if len(values) > 1:
                mean, low, high = t_interval(np.array(values))
                found.append(Difference(kind, dimension, policy.epsilon, mean, low, high, len(values)))
    return found


def t_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and the ends of its two-sided 95 % interval by Student's t.

    Args:
        values: float64 (n,), n >= 2.
    """
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size))
    return mean, mean - half, mean + half


def sentence(metric: str, found: Sequence[Difference]) -> str:
    """Says in plain words where one JL kind is better than selection, and where it is not.

    Args:
        metric: Name of the metric.
        found: Differences of one kind under one choice of epsilon.
    """
    if not found:
        return f"{metric}: no pairs of two seeds or more, so nothing can be said."
    first = found[0]
    parts = []
    for winner, text in (("JL", "is better"), ("selection", "is worse"), (None, "shows no difference")):
        there = [one for one in found if one.winner == winner]
        if there:
            where = ", ".join(f"{one.dimension} ({one.mean:+.3f})" for one in there)
            parts.append(f"{text} at d = {where}")
    return (
        f"{metric}, epsilon {first.epsilon}: JL ({first.kind} projection) against random selection "
        f"{_join(parts)} ({first.seeds} paired seeds, 95 % t intervals, not corrected for {len(found)} comparisons)."
    )


def sentences(metric: str, policies: Sequence[Policy]) -> list[str]:
    """One sentence per choice of epsilon and JL kind that was tried."""
    said = []
    for policy in policies:
        found = differences(policy)
        said += [
            sentence(metric, [one for one in found if one.kind == kind])
            for kind in JL_KINDS
            if any(one.kind == kind for one in found)
        ]
    return said


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
