"""Shrinkage of covariances towards a multiple of the identity."""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from flawline.calibration.mixture import Mixture, draw_embeddings
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from sklearn import covariance as estimators
else:
    estimators = LazyModule("sklearn.covariance", "pip install 'flawline[fit]'")

Estimator = Literal["oas", "ledoit-wolf"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


def shrink(covariance: npt.NDArray[np.float64], share: float) -> None:
    """Replaces Sigma by (1 - s) Sigma + s mean(diag Sigma) I, in place.

    Args:
        covariance: float64 (..., d, d).
        share: s, 0 to 1.
    """
    diagonal = np.arange(covariance.shape[-1])
    variance = covariance[..., diagonal, diagonal].mean(axis=-1, keepdims=True)
    covariance *= 1 - share
    covariance[..., diagonal, diagonal] += share * variance


def shrink_each(
    mixture: Mixture,
    estimator: Estimator,
    embeddings: npt.NDArray[np.float32],
    assigned: npt.NDArray[np.int32],
    seed: int,
) -> None:
    """Shrinks each covariance, in place, by the share that an estimator finds for it.

    Source: scikit-learn's estimators of Chen et al. (2010, `oas`) and Ledoit and Wolf (2004).

    Args:
        mixture: One component per Gaussian.
        estimator: Which estimator.
        embeddings: float32 (N, P, d) that the estimate rests on, at most 20,000 of them per Gaussian.
        assigned: int32 (P,), the Gaussian of each position.
        seed: Seed of the draw where there are more.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    for g, covariance in enumerate(mixture.covariance[:, 0]):
        shrink(
            covariance,
            estimated_share(estimator, draw_embeddings(embeddings, np.flatnonzero(assigned == g), generator)),
        )


def estimated_share(estimator: Estimator, vectors: npt.NDArray[np.floating]) -> float:
    """How far the covariance of vectors (n, d) should be shrunk, 0 to 1."""
    estimate = estimators.oas if estimator == "oas" else estimators.ledoit_wolf
    return float(estimate(vectors)[1])
