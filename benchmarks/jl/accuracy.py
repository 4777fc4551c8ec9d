"""Accuracy of every projection at every epsilon on one set of test images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks import metrics
from flawline.benchmarks.evaluation import Computed, read_mask, upsample
from flawline.benchmarks.jl import comparison
from flawline.benchmarks.jl.comparison import Measured, Policy
from flawline.benchmarks.jl.features import Features
from flawline.benchmarks.jl.sweep import Case, Epsilon, Sweep, halves, image_scores
from flawline.runtime.images import read_image
from flawline.runtime.progress import progress

HALVES_SEED = 0
Images = NDArray[np.bool_]


@dataclass(frozen=True)
class PixelTruth:
    """Masks on one grid for all images, so that a sweep of hundreds of cases can afford pixels.

    Attributes:
        masks: bool (M, size, size): the mask's value at the middle of each cell of the grid.
        images: intp (M,), the test image of each mask; images with an empty mask are left out.
    """

    masks: NDArray[np.bool_]
    images: NDArray[np.intp]

    @classmethod
    def read(cls, features: Features, size: int) -> "PixelTruth | None":
        """Reads the masks of the test images; None if there are none.

        Raises:
            InputError: A mask is unreadable or not of its image's size.
        """
        if all(item.mask is None for item in features.items):
            return None
        masks, images = [], []
        for index, item in enumerate(features.items):
            mask = np.zeros((size, size), bool)
            if item.mask is not None:
                full = read_mask(item.mask, read_image(item.path).shape[:2])
                if not full.any():
                    continue
                rows, columns = (((np.arange(size) + 0.5) * side / size).astype(np.intp) for side in full.shape)
                mask = full[np.ix_(rows, columns)]
            masks.append(mask)
            images.append(index)
        return cls(np.array(masks), np.array(images))

    def auroc(self, maps: NDArray[np.float32], chosen: Images) -> float:
        """Pixel AUROC over the chosen images.

        Args:
            maps: float32 (N, h, w), anomaly maps of all test images.
            chosen: bool (N,).
        """
        rows = np.flatnonzero(chosen[self.images])
        size = (self.masks.shape[1], self.masks.shape[2])
        return metrics.pixel_auroc(
            Computed(len(rows), lambda index: upsample(maps[self.images[rows[index]]], size)),
            Computed(len(rows), lambda index: self.masks[rows[index]]),
        )


@dataclass(frozen=True)
class Accuracy:
    """All that was measured on one set, by metric.

    Attributes:
        measured: "image AUROC" and, with masks, "pixel AUROC": one entry per projection and epsilon.
        empty_masks: Defective images without a marked pixel, left out of the pixel metric.
    """

    measured: dict[str, list[Measured]]
    empty_masks: int

    def policies(self, metric: str, fixed: Sequence[Epsilon]) -> list[Policy]:
        """The metric with epsilon chosen by validation, then with each fixed one."""
        found = self.measured[metric]
        present = {one.epsilon for one in found}
        return [comparison.validated(found), *(comparison.fixed(found, one) for one in fixed if one in present)]


def measure(
    features: Features,
    cases: Sequence[Case],
    epsilons: Sequence[Epsilon],
    *,
    sigma: float,
    pixel_grid: int,
    threads: int,
) -> Accuracy:
    """Measures every projection at every epsilon.

    Args:
        features: Features at full depth.
        cases: Projections.
        epsilons: Regularisations.
        sigma: Standard deviation of the smoothing, pixels of the map.
        pixel_grid: Cells per side of the grid on which pixels are compared; 0 for no pixel metric.
        threads: Threads that compute; the results do not depend on them.

    Raises:
        InputError: All test images are of one class, or a mask is not what it must be.
    """
    kinds = [item.kind for item in features.items]
    defective = np.array([item.is_defective for item in features.items])
    everything = np.ones(len(kinds), bool)
    first = halves(kinds, HALVES_SEED)
    subsets = (everything, first, ~first)
    truth = PixelTruth.read(features, pixel_grid) if pixel_grid else None
    measured: dict[str, list[Measured]] = {"image AUROC": []}
    if truth is not None:
        measured["pixel AUROC"] = []
    sweep = Sweep(features, epsilons, sigma=sigma, threads=threads)
    with ThreadPoolExecutor(threads) as pool:
        for case in progress(cases, label="projections", unit="case"):
            maps = sweep.maps(case)
            for epsilon, scores in zip(epsilons, image_scores(maps), strict=True):
                values = [metrics.image_auroc(defective[chosen], scores[chosen]) for chosen in subsets]
                measured["image AUROC"].append(Measured(case, epsilon, values[0], (values[1], values[2])))
            if truth is not None:
                pixels = pool.map(partial(_pixels, truth, subsets), maps)
                measured["pixel AUROC"] += [
                    Measured(case, epsilon, whole, (one, two))
                    for epsilon, (whole, one, two) in zip(epsilons, pixels, strict=True)
                ]
    return Accuracy(measured, 0 if truth is None else len(kinds) - len(truth.images))


def as_json(accuracy: Accuracy, fixed: Sequence[Epsilon]) -> dict[str, Any]:
    """Everything that was measured, and what follows from it."""
    return {
        "empty_masks": accuracy.empty_masks,
        "metrics": {metric: dict(_metric(accuracy, metric, fixed)) for metric in accuracy.measured},
    }


def _metric(accuracy: Accuracy, metric: str, fixed: Sequence[Epsilon]) -> Iterator[tuple[str, Any]]:
    policies = accuracy.policies(metric, fixed)
    yield "sentences", comparison.sentences(metric, policies)
    yield "over_seeds", [asdict(one) for policy in policies for one in comparison.spreads(policy)]
    yield (
        "differences",
        [asdict(one) | {"winner": one.winner} for policy in policies for one in comparison.differences(policy)],
    )
    yield (
        "chosen_epsilons",
        [
            {"kind": kind, "dimension": dimension, "on_first_half": one, "on_second_half": two}
            for (kind, dimension), (one, two) in policies[0].chosen.items()
        ],
    )
    yield (
        "sweep",
        [
            asdict(one.case) | {"epsilon": str(one.epsilon), "whole": one.whole, "by_half": list(one.by_half)}
            for one in accuracy.measured[metric]
        ],
    )


def _pixels(truth: PixelTruth, subsets: Sequence[Images], maps: NDArray[np.float32]) -> list[float]:
    return [truth.auroc(maps, chosen) for chosen in subsets]
