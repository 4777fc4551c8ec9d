"""Anomaly maps of the test images for every projection and every epsilon, by linear algebra on full-depth features."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.jl.features import Features
from flawline.calibration import projections
from flawline.runtime.extras import LazyModule
from flawline.runtime.kernels import smooth

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[bench]'")

JL_KINDS: tuple[projections.Kind, ...] = ("gaussian", "orthogonal", "sparse")


@dataclass(frozen=True)
class Epsilon:
    """A regularisation of every covariance.

    Attributes:
        value: The number.
        relative: Whether it counts in mean feature variances; else it is added as it is.
    """

    value: float
    relative: bool = True

    def __str__(self) -> str:
        return f"{self.value:g}" if self.relative else f"absolute {self.value:g}"

    def added(self, mean_variance: float) -> float:
        """The number that goes onto the diagonal."""
        return self.value * mean_variance if self.relative else self.value


DEFAULT_EPSILONS = (*(Epsilon(value) for value in (0.001, 0.003, 0.01, 0.03, 0.1)), Epsilon(0.01, relative=False))


@dataclass(frozen=True)
class Case:
    """One projection.

    Attributes:
        kind: Kind of projection.
        dimension: Projected dimension d.
        seed: Seed of the draw.
    """

    kind: projections.Kind
    dimension: int
    seed: int


def cases(kinds: Sequence[projections.Kind], dimensions: Sequence[int], seeds: Sequence[int], depth: int) -> list[Case]:
    """All projections to try: each kind, dimension and seed, dimensions up to the depth of the features.

    `none` has neither a dimension nor a seed, so it comes once.
    """
    possible = [dimension for dimension in dimensions if dimension <= depth]
    drawn = [Case(kind, d, seed) for kind in kinds if kind != "none" for d in possible for seed in seeds]
    return drawn + [Case("none", depth, 0)] * ("none" in kinds)


class Sweep:
    """Projects, whitens and scores all test images at once, for all epsilons at once.

    With `Pi Sigma Pi^T = U diag(lambda) U^T`, the squared Mahalanobis distance under any epsilon is
    `sum_i (u_i . Pi x)^2 / (lambda_i + epsilon)` (the textbook distance, Zhang, Zhang, Dong 2021, equations 9 and 10):
    one eigendecomposition and one product per position serve the whole sweep of epsilons. Covariances are projected and
    decomposed in float64, distances computed in float32.

    Each position is worked on by one thread with a single-threaded BLAS, so that results do not depend on the number of
    threads, bit for bit.

    Args:
        features: Features at full depth.
        epsilons: Regularisations.
        sigma: Standard deviation of the smoothing, pixels of the map.
        threads: Threads that compute.
    """

    def __init__(self, features: Features, epsilons: Sequence[Epsilon], *, sigma: float, threads: int) -> None:
        self._features = features
        self._epsilons = tuple(epsilons)
        self._sigma = sigma
        self._threads = threads
        self._mean_covariance = features.covariance.mean(axis=0)

    def maps(self, case: Case) -> NDArray[np.float32]:
        """Anomaly maps of all test images under one projection.

        Args:
            case: The projection.

        Returns:
            float32 (E, N, h, w), one set per epsilon.
        """
        features = self._features
        projection = projections.matrix(
            case.kind, input_dimension=features.depth, dimension=case.dimension, seed=case.seed
        ).astype(np.float64)
        variance = float(np.sum((projection @ self._mean_covariance) * projection)) / case.dimension
        added = np.array([epsilon.added(variance) for epsilon in self._epsilons])
        positions, images, _ = features.centred.shape
        squared = np.empty((len(added), images, positions), np.float32)

        def score(position: int) -> None:
            variances, axes = np.linalg.eigh(projection @ features.covariance[position] @ projection.T)
            # Rounding may leave eigenvalues of a singular covariance a little below zero.
            weights = (1.0 / (np.maximum(variances, 0)[:, None] + added)).astype(np.float32)
            coordinates = features.centred[position] @ (projection.T @ axes).astype(np.float32)
            np.square(coordinates, out=coordinates)
            squared[:, :, position] = (coordinates @ weights).T

        with threadpoolctl.threadpool_limits(limits=1), ThreadPoolExecutor(self._threads) as pool:
            for _ in pool.map(score, range(positions)):
                pass
        distances = np.sqrt(squared, out=squared).reshape(-1, *features.map_size)
        return smooth(distances, self._sigma).reshape(len(added), images, *features.map_size)


def image_scores(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The score of each image: the maximum of its map.

    Args:
        maps: float32 (..., h, w).

    Returns:
        float32 (...).
    """
    return np.asarray(maps.max(axis=(-2, -1)))


def halves(kinds: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """Divides labelled images into two halves, each kind of flaw and the good images by themselves.

    Args:
        kinds: "good" or the name of the flaw, per image.
        seed: Seed of the draw (raw Philox words).

    Returns:
        bool (n,), True in one half.
    """
    words = np.random.Philox(key=seed).random_raw(len(kinds))
    first = np.zeros(len(kinds), bool)
    for chosen in _groups(kinds):
        order = chosen[np.argsort(words[chosen], kind="stable")]
        first[order[: len(order) // 2]] = True
    return first


def _groups(kinds: Sequence[str]) -> Iterator[NDArray[np.intp]]:
    names = np.asarray(kinds)
    for name in sorted(set(kinds)):
        yield np.flatnonzero(names == name)
