"""One pass over windows of good web through the exported graph, and the statistics of what is web in them."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from flawline.calibration.gaussian import assignment
from flawline.calibration.good_web import Window
from flawline.calibration.mixture import SAMPLE, Mixture, fit_each
from flawline.calibration.shrinkage import shrink
from flawline.calibration.statistics import EmbeddingReader, Statistics, StatisticsOptions, pack_statistics
from flawline.runtime.errors import InputError


def collect_web(
    reader: EmbeddingReader,
    windows: Sequence[Window],
    size: tuple[int, int],
    dimension: int,
    options: StatisticsOptions,
    watch: Iterable[Window],
) -> Statistics:
    """Fits the statistics of a web; positions that are no web, and rings around tiles, take no part.

    Args:
        reader: Windows to embeddings.
        windows: Of good web.
        size: Height and width of a window's map.
        dimension: Channels d of an embedding.
        options: How the web is modelled; tied by column or global.
        watch: The same windows, as they are read: shows progress.

    Raises:
        InputError: Features are NaN or infinite or do not vary, a column of the web never shows, or an option does not
            go with webs.
    """
    if options.tie == "position":
        raise InputError("--tie position is for aligned parts; expected global or column for a web")
    if isinstance(options.shrinkage, str):
        raise InputError(f"--shrinkage {options.shrinkage} is for pictures; give a number from 0 to 1 for a web")
    assigned = assignment(options.tie, *size)
    gaussians = int(assigned.max()) + 1
    moments = Moments(gaussians, dimension)
    sample = _Sample(gaussians, dimension, len(windows), options.seed) if options.components > 1 else None
    inside = iter(windows)
    for batch in reader.batches(window.read() for window in watch):
        for embeddings in batch:
            own = next(inside).inside().ravel()
            vectors, groups = embeddings[own], assigned[own]
            moments.add(vectors, groups)
            if sample is not None:
                sample.add(vectors, groups)
    _fill_ring(moments, options.tie)
    mixture = Mixture(moments.mean[:, None], moments.covariance()[:, None])
    if sample is not None:
        mixture = fit_each(sample.values(), options.components, options.seed)
    if options.shrinkage is not None:
        shrink(mixture.covariance, options.shrinkage)
    return pack_statistics(mixture, assigned, int(moments.count.min()), options)


class Moments:
    """Count, mean and scatter of vectors that belong to one of G groups, as many as there are of each.

    Source: the pairwise update of Chan, Golub and LeVeque (1983).

    Attributes:
        count: int64 (G,).
        mean: float64 (G, d).
        scatter: float64 (G, d, d).
    """

    def __init__(self, groups: int, dimension: int) -> None:
        self.count = np.zeros(groups, np.int64)
        self.mean = np.zeros((groups, dimension))
        self.scatter = np.zeros((groups, dimension, dimension))

    def add(self, vectors: npt.NDArray[np.float32], groups: npt.NDArray[np.int32]) -> None:
        """Takes in vectors, float32 (n, d), and the group of each.

        Raises:
            InputError: A vector is NaN or infinite.
        """
        for group in np.unique(groups).tolist():
            values = vectors[groups == group].astype(np.float64)
            mean = values.mean(axis=0)
            if not np.isfinite(mean).all():
                raise InputError("the network gives NaN or infinite features for this web; check weights and images")
            values -= mean
            before, added = int(self.count[group]), len(values)
            delta = (mean - self.mean[group]) * math.sqrt(before * added / (before + added))
            self.scatter[group] += values.T @ values + np.outer(delta, delta)
            self.mean[group] += (mean - self.mean[group]) * (added / (before + added))
            self.count[group] = before + added

    def covariance(self) -> npt.NDArray[np.float64]:
        """The unbiased covariances, float64 (G, d, d).

        Raises:
            InputError: A group has fewer than two vectors.
        """
        if self.count.min() < 2:
            raise InputError(
                f"column {int(self.count.argmin())} of the map shows {int(self.count.min())} positions of good web; expected "
                "2 or more: give more web, or --tie global"
            )
        return self.scatter / (self.count - 1)[:, None, None]


class _Sample:
    """At most `SAMPLE` vectors of each group, as many from each window."""

    def __init__(self, groups: int, dimension: int, windows: int, seed: int) -> None:
        self._quota = max(1, -(-SAMPLE // windows))
        self._kept: list[list[npt.NDArray[np.float32]]] = [[] for _ in range(groups)]
        self._generator = np.random.Generator(np.random.Philox(key=seed))

    def add(self, vectors: npt.NDArray[np.float32], groups: npt.NDArray[np.int32]) -> None:
        for group in np.unique(groups).tolist():
            own = np.flatnonzero(groups == group)
            if own.size > self._quota:
                own = self._generator.choice(own, self._quota, replace=False)
            self._kept[group].append(vectors[own])

    def values(self) -> Iterable[npt.NDArray[np.float64]]:
        for parts in self._kept:
            values = np.concatenate(parts).astype(np.float64)
            if len(values) > SAMPLE:
                values = values[self._generator.choice(len(values), SAMPLE, replace=False)]
            yield values


def _fill_ring(moments: Moments, tie: str) -> None:
    """Columns of the map that are no web anywhere, such as the ring, borrow what the nearest one that is has seen."""
    if tie != "column":
        return
    seen = np.flatnonzero(moments.count >= 2)
    if not seen.size:
        return
    for column in np.flatnonzero(moments.count < 2).tolist():
        nearest = seen[np.abs(seen - column).argmin()]
        moments.count[column] = moments.count[nearest]
        moments.mean[column], moments.scatter[column] = moments.mean[nearest], moments.scatter[nearest]
