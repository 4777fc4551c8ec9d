"""Accuracies of several splits taken together: means, and what a variant changes split by split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from flawline.benchmarks.accuracy import SplitAccuracy, Variant

METRICS = ("image_auroc", "pixel_auroc", "aupro")


@dataclass(frozen=True)
class Difference:
    """What a variant scores more than its reference, both on the same images.

    Attributes:
        mean: Over splits.
        largest: Of the split where it is farthest from zero.
    """

    mean: float
    largest: float


@dataclass(frozen=True)
class MeanAccuracy:
    """All splits of one variant.

    Attributes:
        variant: The detector.
        splits: Number of splits.
        image_auroc: Mean over splits.
        image_auroc_std: Standard deviation over splits (n - 1); None for a single one.
        average_precision: Mean over splits.
        pixel_auroc: Mean over splits; None without masks.
        aupro: Mean over splits; None without masks.
        false_reject_share: Mean share of good images above the threshold.
        miss_share: Mean share of defective images below it.
        differences: To the reference, by metric; empty for the reference itself and where it was not measured.
    """

    variant: Variant
    splits: int
    image_auroc: float
    image_auroc_std: float | None
    average_precision: float
    pixel_auroc: float | None
    aupro: float | None
    false_reject_share: float
    miss_share: float
    differences: dict[str, Difference]


def summarise(measured: Sequence[SplitAccuracy]) -> list[MeanAccuracy]:
    """Means over splits, one per variant in the order measured."""
    found = {(one.seed, one.variant): one for one in measured}
    return [
        _mean_accuracy(variant, [one for one in measured if one.variant == variant], found)
        for variant in dict.fromkeys(one.variant for one in measured)
    ]


def _mean_accuracy(
    variant: Variant, chosen: Sequence[SplitAccuracy], found: Mapping[tuple[int, Variant], SplitAccuracy]
) -> MeanAccuracy:
    auroc = [one.image_auroc for one in chosen]
    references = ((one, found.get((one.seed, variant.reference))) for one in chosen)
    pairs = [(one, reference) for one, reference in references if reference is not None and reference is not one]
    return MeanAccuracy(
        variant=variant,
        splits=len(chosen),
        image_auroc=float(np.mean(auroc)),
        image_auroc_std=float(np.std(auroc, ddof=1)) if len(auroc) > 1 else None,
        average_precision=float(np.mean([one.average_precision for one in chosen])),
        pixel_auroc=_mean([one.pixel_auroc for one in chosen]),
        aupro=_mean([one.aupro for one in chosen]),
        false_reject_share=float(np.mean([one.false_rejects / one.test_good for one in chosen])),
        miss_share=float(np.mean([one.misses / one.test_defective for one in chosen])),
        differences=_differences(pairs),
    )


def _differences(pairs: Sequence[tuple[SplitAccuracy, SplitAccuracy]]) -> dict[str, Difference]:
    differences = {}
    for metric in METRICS:
        value = attrgetter(metric)
        gained = [value(one) - value(reference) for one, reference in pairs if value(one) is not None]
        if gained:
            differences[metric] = Difference(float(np.mean(gained)), float(max(gained, key=abs)))
    return differences


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
