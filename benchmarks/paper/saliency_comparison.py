"""Error maps and saliency maps of a group of images, compared (Feeney and Hughes, 2021, section 3.1)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.paper.map_agreement import agreement, agreement_frequencies
from flawline.benchmarks.paper.saliency_options import COUNTS

Doubles = npt.NDArray[np.float64]


class Maps(NamedTuple):
    """What a network makes of N grey images, pixel by pixel.

    Attributes:
        reconstruction: float32 (N, height, width), grey levels.
        error: float32 (N, height, width), the squared error in squared grey levels.
        saliency: float32 (N, height, width), |d mean squared error / d pixel| of pixels from 0 to 1.
    """

    reconstruction: npt.NDArray[np.float32]
    error: npt.NDArray[np.float32]
    saliency: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Estimate:
    """A mean over images.

    Attributes:
        mean: The mean.
        standard_error: Of the mean, by the spread over the images; 0 for a single one.
    """

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Group:
    """How the maps of one group of images agree.

    Attributes:
        images: How many there are.
        mean_squared_error: Of their reconstructions, pixels from 0 to 1.
        frequencies: By K, the share of the images with 0 to K of their K largest pixels in common: the paper's figure 2.
        majority: By K, the share with more than half of them in common: its table 1.
        distance_px: By K, the largest distance of one of the saliency's pixels to the nearest of the error's.
        saliency: Mean squared difference of saliency and error, each divided by its maximum.
        squared_saliency: Likewise of squared saliency and error.
        gain: The former less the latter, image by image.
        through_network: See `through_network`.
    """

    images: int
    mean_squared_error: float
    frequencies: dict[int, list[float]]
    majority: dict[int, Estimate]
    distance_px: dict[int, Estimate]
    saliency: Estimate
    squared_saliency: Estimate
    gain: Estimate
    through_network: Estimate


@dataclass(frozen=True)
class SeedResult:
    """One training and its maps.

    Attributes:
        seed: Of the weights, the drawing, the split and the order of the images.
        images: Normal images that were trained on, those for validation included.
        epochs: Training loss and validation loss of each.
        best_epoch: Number, from 1, of the epoch whose weights are used.
        stopped_early: Whether training ended because the validation loss no longer fell.
        groups: `normal` and `novel`.
    """

    seed: int
    images: int
    epochs: tuple[tuple[float, float], ...]
    best_epoch: int
    stopped_early: bool
    groups: dict[str, Group]


def compare(maps: Maps) -> Group:
    """Compares the maps of a group of images, the saliency being the reference.

    Args:
        maps: Of at least one image.

    Raises:
        InputError: They are no maps; see `agreement`.
    """
    saliency, error = maps.saliency.astype(np.float64), maps.error.astype(np.float64)
    by_count = {count: agreement(saliency, error, count) for count in COUNTS}
    plain = by_count[COUNTS[0]].squared_difference
    squared = agreement(saliency**2, error, COUNTS[0]).squared_difference
    return Group(
        images=len(error),
        mean_squared_error=float(error.mean() / 255**2),
        frequencies={count: agreement_frequencies(one.shared, count).tolist() for count, one in by_count.items()},
        majority={count: _estimate(2 * one.shared > count) for count, one in by_count.items()},
        distance_px={count: _estimate(one.distance_px) for count, one in by_count.items()},
        saliency=_estimate(plain),
        squared_saliency=_estimate(squared),
        gain=_estimate(plain - squared),
        through_network=_estimate(through_network(maps)),
    )


def through_network(maps: Maps) -> Doubles:
    """What the network adds to the gradient of the error, relative to what there is without it: why maps differ at all.

    With the residual r = reconstruction - image and the network's Jacobian J, the saliency of n pixels is
    2 / n |J^T r - r|. Were J^T r zero, it would be 2 / n times the root of the error: all pixels in the same order, and
    the squared saliency the error itself.

    Args:
        maps: Of N images.

    Returns:
        float64 (N,): the norm of n / 2 saliency - |r| over that of r. Signs being lost, it is a lower bound of the norm of
        J^T r over that of r. 0 where there is no residual.
    """
    count = len(maps.error)
    residual = np.sqrt(maps.error.reshape(count, -1).astype(np.float64)) / 255
    gradient = residual.shape[1] / 2 * maps.saliency.reshape(count, -1).astype(np.float64)
    added, size = (np.linalg.norm(one, axis=1) for one in (gradient - residual, residual))
    return np.asarray(np.divide(added, size, out=np.zeros(count), where=size > 0), np.float64)


def _estimate(values: npt.NDArray[np.bool_] | Doubles) -> Estimate:
    numbers = values.astype(np.float64)
    spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return Estimate(float(numbers.mean()), spread / len(numbers) ** 0.5)
