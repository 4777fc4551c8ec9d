"""Accuracy of the real path over several splits: images to a bundle, to a detector, to scores, to numbers."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flawline.benchmarks.datasets import Dataset
from flawline.benchmarks.evaluation import evaluate, score_items
from flawline.export.fit import FitOptions, fit_bundle
from flawline.runtime import Detector
from flawline.runtime.bundle import Manifest
from flawline.runtime.progress import progress


@dataclass(frozen=True)
class SplitAccuracy:
    """One split at one dimension.

    Attributes:
        seed: Of the split and of the projection.
        dimension: Projected dimension d.
        fit_images: Images behind the statistics.
        calibration_images: Images behind the threshold.
        test_good: Good images measured on.
        test_defective: Defective images measured on.
        image_auroc: Area under the ROC over images.
        average_precision: Average precision over images.
        pixel_auroc: Area under the ROC over pixels; None without masks.
        aupro: Per-region overlap to a false positive rate of 0.3; None without masks.
        false_rejects: Good images above the threshold.
        misses: Defective images below it.
    """

    seed: int
    dimension: int
    fit_images: int
    calibration_images: int
    test_good: int
    test_defective: int
    image_auroc: float
    average_precision: float
    pixel_auroc: float | None
    aupro: float | None
    false_rejects: int
    misses: int


@dataclass(frozen=True)
class MeanAccuracy:
    """All splits at one dimension.

    Attributes:
        dimension: Projected dimension d.
        splits: Number of splits.
        image_auroc: Mean over splits.
        image_auroc_std: Standard deviation over splits (n - 1); None for a single one.
        average_precision: Mean over splits.
        pixel_auroc: Mean over splits; None without masks.
        aupro: Mean over splits; None without masks.
        false_reject_share: Mean share of good images above the threshold.
        miss_share: Mean share of defective images below it.
    """

    dimension: int
    splits: int
    image_auroc: float
    image_auroc_std: float | None
    average_precision: float
    pixel_auroc: float | None
    aupro: float | None
    false_reject_share: float
    miss_share: float


def measure(
    dataset: Dataset,
    options: FitOptions,
    *,
    dimensions: Sequence[int],
    fit_images: int | None,
    calibration_images: int,
    splits: int,
    say: Callable[[str], None],
) -> tuple[list[SplitAccuracy], Manifest]:
    """Fits, opens and measures a detector for every split and dimension.

    Args:
        dataset: Good images to draw from and labelled ones to measure on.
        options: How to fit; dimension, seed and numbers of images are set here.
        dimensions: Dimensions to try.
        fit_images: Images to fit on; None for the data set's default (see `Dataset.split`).
        calibration_images: Good images held out for the threshold, on top of those.
        splits: Number of splits; seeds are 0, 1, ...
        say: Takes a line of what has been measured.

    Returns:
        One entry per split and dimension, and the manifest of the last bundle.

    Raises:
        InputError: The data or the options are not what they must be.
    """
    measured = []
    for seed in range(splits):
        split = dataset.split(fit_images, calibration_images, seed)
        for dimension in dimensions:
            chosen = replace(
                options, dimension=dimension, seed=seed, calibration_images=calibration_images, fit_images=None
            )
            with tempfile.TemporaryDirectory(prefix="flawline-accuracy-") as folder:
                path = Path(folder) / "bundle"
                fit_bundle([*split.fit, *split.calibration], path, chosen)
                with Detector.open(path, threads=options.threads) as detector:
                    manifest = detector.bundle.manifest
                    items = progress(score_items(detector, split.test), total=len(split.test), label="scoring")
                    found = evaluate(list(items), detector.threshold)
            measured.append(
                SplitAccuracy(
                    seed=seed,
                    dimension=dimension,
                    fit_images=manifest.fit.images,
                    calibration_images=manifest.fit.calibration_images,
                    test_good=found.images - found.defective,
                    test_defective=found.defective,
                    image_auroc=found.image_auroc,
                    average_precision=found.average_precision,
                    pixel_auroc=found.pixel_auroc,
                    aupro=found.aupro,
                    false_rejects=found.false_rejects,
                    misses=found.misses,
                )
            )
            say(f"split {seed}, d = {dimension}: image AUROC {found.image_auroc:.4f}")
    return measured, manifest


def summarise(measured: Sequence[SplitAccuracy]) -> list[MeanAccuracy]:
    """Means over splits, one per dimension in the order measured."""
    means = []
    for dimension in dict.fromkeys(one.dimension for one in measured):
        chosen = [one for one in measured if one.dimension == dimension]
        auroc = [one.image_auroc for one in chosen]
        means.append(
            MeanAccuracy(
                dimension=dimension,
                splits=len(chosen),
                image_auroc=float(np.mean(auroc)),
                image_auroc_std=float(np.std(auroc, ddof=1)) if len(auroc) > 1 else None,
                average_precision=float(np.mean([one.average_precision for one in chosen])),
                pixel_auroc=_mean([one.pixel_auroc for one in chosen]),
                aupro=_mean([one.aupro for one in chosen]),
                false_reject_share=float(np.mean([one.false_rejects / one.test_good for one in chosen])),
                miss_share=float(np.mean([one.misses / one.test_defective for one in chosen])),
            )
        )
    return means


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
