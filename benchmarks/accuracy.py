"""Accuracy of the real path over several splits: images to a bundle, to a detector, to scores, to numbers."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flawline.benchmarks.datasets import Dataset, Split
from flawline.benchmarks.evaluation import Evaluation, evaluate, score_items
from flawline.benchmarks.fits import fit_from_float
from flawline.calibration.statistics import FactorType
from flawline.export.fit import FitOptions, fit_bundle
from flawline.export.fitting import Say
from flawline.export.parity import ParityError
from flawline.runtime import Detector
from flawline.runtime.bundle import PadimManifest
from flawline.runtime.precisions import ENGINES, Precision
from flawline.runtime.progress import progress


@dataclass(frozen=True)
class Variant:
    """One form of a detector.

    Attributes:
        dimension: Projected dimension d.
        precision: Of the network, in the engine that its statistics are collected through.
        factors: Type of the stored factors.
    """

    dimension: int
    precision: Precision
    factors: FactorType

    @property
    def reference(self) -> "Variant":
        """What differences are told to: everything in 32-bit floating point."""
        return Variant(self.dimension, "fp32", "fp32")

    def __str__(self) -> str:
        return f"d = {self.dimension}, {self.precision} network, {self.factors} factors"


@dataclass(frozen=True)
class SplitAccuracy:
    """One split and one variant.

    Attributes:
        seed: Of the split and of the projection.
        variant: The detector.
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
    variant: Variant
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
class Refusal:
    """A variant that was not written, since it does not score like its reference.

    Attributes:
        seed: Of the split.
        variant: The detector.
        reason: In one line.
    """

    seed: int
    variant: Variant
    reason: str


def variants_of(
    dimensions: Sequence[int], precisions: Sequence[Precision], factor_types: Sequence[FactorType]
) -> list[Variant]:
    """Every combination; where there are several of one dimension, the reference comes first."""
    chosen: dict[Variant, None] = {}
    for dimension in dimensions:
        asked = [Variant(dimension, precision, factors) for factors in factor_types for precision in precisions]
        chosen |= dict.fromkeys([asked[0].reference, *asked] if len(asked) > 1 else asked)
    return list(chosen)


def measure(
    dataset: Dataset,
    options: FitOptions,
    variants: Sequence[Variant],
    *,
    fit_images: int | None,
    calibration_images: int,
    splits: int,
    say: Say,
) -> tuple[list[SplitAccuracy], list[Refusal], PadimManifest]:
    """Fits, opens and measures every variant on every split.

    All variants of a split see the same images, and those of one dimension the same projection.

    Args:
        dataset: Good images to draw from and labelled ones to measure on.
        options: How to fit; what variant and split say is set here.
        variants: Detectors to try.
        fit_images: Images to fit on; None for the data set's default (see `Dataset.split`).
        calibration_images: Good images held out for the threshold, on top of those.
        splits: Number of splits; seeds are 0, 1, ...
        say: Takes a line of what has been measured.

    Returns:
        One entry per split and variant, the variants that were refused, and the manifest of the last bundle.

    Raises:
        InputError: The data or the options are not what they must be.
        ParityError: Every variant was refused.
    """
    measured: list[SplitAccuracy] = []
    refused: list[Refusal] = []
    manifest: PadimManifest | None = None
    for seed in range(splits):
        split = dataset.split(fit_images, calibration_images, seed)
        on_split = replace(options, seed=seed, calibration_images=calibration_images, fit_images=None)
        with tempfile.TemporaryDirectory(prefix="flawline-accuracy-") as folder:
            for variant, fitted in _fits(split, on_split, variants, Path(folder)):
                if isinstance(fitted, ParityError):
                    refused.append(Refusal(seed, variant, str(fitted)))
                    say(f"split {seed}, {variant}: refused: {fitted}")
                    continue
                found, manifest = _evaluate(fitted, variant, split, options.threads)
                measured.append(_accuracy(seed, variant, found, manifest))
                say(f"split {seed}, {variant}: image AUROC {found.image_auroc:.4f}")
    if manifest is None:
        raise ParityError(refused[0].reason)
    order = {variant: place for place, variant in enumerate(variants)}
    return sorted(measured, key=lambda one: (one.seed, order[one.variant])), refused, manifest


def _fits(
    split: Split, options: FitOptions, variants: Sequence[Variant], folder: Path
) -> Iterator[tuple[Variant, Path | ParityError]]:
    """Bundles of all variants, or why there is none; each is there until the next one is asked for."""
    images = [*split.fit, *split.calibration]
    floats, path = folder / "floats", folder / "bundle"
    # One float detector per dimension and type of factors: what all precisions are made from.
    for base in dict.fromkeys(replace(variant, precision="fp32") for variant in variants):
        chosen = [variant for variant in variants if replace(variant, precision="fp32") == base]
        statistics = replace(options.statistics, factors=base.factors, seed=options.seed)
        try:
            fit_bundle(images, floats, replace(options, dimension=base.dimension, statistics=statistics))
        except ParityError as error:
            yield from ((variant, error) for variant in chosen)
            continue
        for variant in chosen:
            if variant == base:
                yield variant, floats
                continue
            try:
                fit_from_float(floats, variant.precision, images, path, threads=options.threads)
            except ParityError as error:
                yield variant, error
                continue
            yield variant, path
            shutil.rmtree(path)
        shutil.rmtree(floats)


def _evaluate(path: Path, variant: Variant, split: Split, threads: int) -> tuple[Evaluation, PadimManifest]:
    with Detector.open(path, backend=ENGINES[variant.precision][0], threads=threads) as detector:
        items = progress(score_items(detector, split.test), total=len(split.test), label="scoring")
        return evaluate(list(items), detector.threshold), detector.bundle.padim


def _accuracy(seed: int, variant: Variant, found: Evaluation, manifest: PadimManifest) -> SplitAccuracy:
    return SplitAccuracy(
        seed=seed,
        variant=variant,
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
