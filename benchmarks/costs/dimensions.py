"""Where the time goes by projected dimension, and which dimension is worth its time."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flawline.benchmarks import metrics
from flawline.benchmarks.costs.footprint import Factors
from flawline.benchmarks.costs.stages import Frame, Latency, measure
from flawline.benchmarks.costs.ways import Setup, Way
from flawline.benchmarks.datasets import Item
from flawline.benchmarks.evaluation import score_items
from flawline.runtime.progress import progress


@dataclass(frozen=True)
class Cost:
    """What a dimension costs and what it is worth.

    Attributes:
        latency: As calibrated.
        factors: Packed.
        image_auroc: Over labelled images; None without.
        unbeaten: Whether no other dimension of the same precision, engine and number of threads has an end to end p50
            and an image AUROC that are as good, and one of them better; None without labelled images.
        gain_per_ms: Image AUROC over that of the next faster unbeaten one, per ms of end to end p50 that it takes more;
            None for the fastest of them and for those that are beaten.
    """

    latency: Latency
    factors: Factors
    image_auroc: float | None
    unbeaten: bool | None
    gain_per_ms: float | None


def compare(
    ways: Sequence[Way],
    frames: Sequence[Frame],
    *,
    factors: Mapping[Setup, Factors],
    image_aurocs: Mapping[Setup, float],
    threads: int,
    runs: int,
) -> list[Cost]:
    """Times detectors of several dimensions in alternation.

    Args:
        ways: Detectors.
        frames: Real frames.
        factors: Of each.
        image_aurocs: Of each; empty if they are not known.
        threads: Threads of engine and kernel.
        runs: Timed frames of each.

    Raises:
        See `stages.measure`.
    """
    measured, _ = measure(ways, frames, threads=threads, runs=runs, cases=["as calibrated"])
    times = {one.setup: one.end_to_end.p50_ns for one in measured}
    best: set[Setup] = set()
    gains: dict[Setup, float] = {}
    for name in dict.fromkeys(setup.name for setup in image_aurocs):
        rivals = [setup for setup in image_aurocs if setup.name == name]
        points = [(times[one] / 1e6, image_aurocs[one]) for one in rivals]
        best |= {rivals[index] for index in unbeaten(points)}
        gains |= {rivals[index]: gain for index, gain in marginal_gains(points).items()}
    return [
        Cost(
            latency=one,
            factors=factors[one.setup],
            image_auroc=image_aurocs.get(one.setup),
            unbeaten=one.setup in best if image_aurocs else None,
            gain_per_ms=gains.get(one.setup),
        )
        for one in measured
    ]


def image_auroc(way: Way, items: Sequence[Item], *, threads: int) -> float:
    """Area under the ROC over labelled images.

    Raises:
        InputError: An image cannot be read, or all are of one class.
    """
    with way.open(threads=threads) as detector:
        label = f"scoring at d = {way.setup.dimension}"
        scores = [one.score for one in progress(score_items(detector, items), total=len(items), label=label)]
    return metrics.image_auroc(np.array([item.is_defective for item in items], bool), np.array(scores))


def unbeaten(points: Sequence[tuple[float, float]]) -> list[int]:
    """The Pareto front: indices of the points that no other beats.

    Args:
        points: (cost, worth). A point beats another with no more cost and no less worth, if it is not its equal.
    """
    return [
        index
        for index, (cost, worth) in enumerate(points)
        if not any(
            other_cost <= cost and other_worth >= worth and (other_cost, other_worth) != (cost, worth)
            for other_cost, other_worth in points
        )
    ]


def marginal_gains(points: Sequence[tuple[float, float]]) -> dict[int, float]:
    """What each unbeaten point is worth more than the next cheaper one, per unit of what it costs more.

    Args:
        points: (cost, worth), as for `unbeaten`.

    Returns:
        By index of the point; the cheapest has nothing to be compared with.
    """
    front = sorted(unbeaten(points), key=lambda index: points[index])
    gains: dict[int, float] = {}
    for cheaper, dearer in itertools.pairwise(front):
        more = points[dearer][0] - points[cheaper][0]
        # Equal points are both unbeaten, and neither gains.
        if more > 0:
            gains[dearer] = (points[dearer][1] - points[cheaper][1]) / more
    return gains
