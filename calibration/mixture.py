"""Several Gaussians where one is too few: a texture has more than one way to be normal."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from sklearn import mixture
else:
    mixture = LazyModule("sklearn.mixture", "pip install 'flawline[fit]'")

SAMPLE = 20_000
"""Embeddings per Gaussian that a mixture is fitted to."""

_MINIMUM_PER_COMPONENT = 2


class Mixture(NamedTuple):
    """Gaussians with K components each.

    Attributes:
        mean: float64 (G, K, d).
        covariance: float64 (G, K, d, d).
    """

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


def fit_mixtures(
    embeddings: npt.NDArray[np.float32], assigned: npt.NDArray[np.int32], components: int, seed: int
) -> Mixture:
    """Fits a mixture of K full-covariance Gaussians to the embeddings of each Gaussian, by expectation maximisation.

    Args:
        embeddings: float32 (N, P, d).
        assigned: int32 (P,), the Gaussian of each position.
        components: Components K.
        seed: Seed of the sample (20,000 embeddings per Gaussian) and of the start.

    Raises:
        InputError: A Gaussian has too few embeddings for K components.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    drawn = (
        draw_embeddings(embeddings, np.flatnonzero(assigned == g), generator) for g in range(int(assigned.max()) + 1)
    )
    return fit_each(drawn, components, seed)


def fit_each(samples: Iterable[npt.NDArray[np.float64]], components: int, seed: int) -> Mixture:
    """Fits a mixture of K full-covariance Gaussians to each sample, by expectation maximisation.

    Args:
        samples: float64 (n, d) of each Gaussian.
        components: Components K.
        seed: Seed of the start.

    Raises:
        InputError: A sample is too small for K components.
    """
    means, covariances = [], []
    for values in samples:
        if len(values) < _MINIMUM_PER_COMPONENT * components:
            raise InputError(
                f"{len(values)} embeddings per Gaussian do not suffice for {components} components; "
                "use fewer components, more images or --tie global"
            )
        spread = float(values.var(axis=0).mean())
        model = mixture.GaussianMixture(
            components,
            covariance_type="full",
            random_state=seed,
            reg_covar=max(1e-4 * spread, 1e-12),
            max_iter=50,
            tol=1e-2,
        )
        model.fit(values)
        means.append(model.means_)
        covariances.append(model.covariances_)
    return Mixture(np.stack(means), np.stack(covariances))


def draw_embeddings(
    embeddings: npt.NDArray[np.float32], positions: npt.NDArray[np.intp], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The embeddings of some positions, or 20,000 of them drawn at random if there are more.

    Args:
        embeddings: float32 (N, P, d).
        positions: Which of the P.
        generator: Draws.

    Returns:
        float64 (n, d).
    """
    total = len(embeddings) * len(positions)
    if total > SAMPLE:
        chosen = generator.choice(total, SAMPLE, replace=False)
        return embeddings[chosen // len(positions), positions[chosen % len(positions)]].astype(np.float64)
    return embeddings[:, positions].reshape(total, -1).astype(np.float64)
