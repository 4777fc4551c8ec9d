"""One pass over windows of good web through the exported graph, and the statistics of what is web in them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from flawline.calibration.gaussian import assignment
from flawline.calibration.good_web import Window
from flawline.calibration.mixture import SAMPLE, Mixture, fit_each
from flawline.calibration.shrinkage import shrink
from flawline.calibration.statistics import EmbeddingReader, Statistics, StatisticsOptions, pack_statistics
from flawline.runtime.bundle.manifest import PadimManifest
from flawline.runtime.errors import InputError

_OFTEN = 0.1
"""Of how often the column that was seen most often was: below, a column's own statistics are too few."""


def require_for_web(options: StatisticsOptions) -> None:
    """Refuses a model that does not go with webs.

    Raises:
        InputError: It has a Gaussian per position, or shrinkage that is estimated.
    """
    if options.tie == "position":
        raise InputError("--tie position is for aligned parts; expected global or column for a web")
    if isinstance(options.shrinkage, str):
        raise InputError(f"--shrinkage {options.shrinkage} is for pictures; expected a number from 0 to 1 for a web")


def sampled_windows(manifest: PadimManifest, windows: int) -> int:
    """How many windows have as many embeddings as are kept for mixtures.

    Args:
        manifest: Of the detector to be.
        windows: How many are fitted.
    """
    return min(windows, -(-manifest.gaussian.count * SAMPLE // manifest.positions))


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
        options: How the web is modelled; see `require_for_web`.
        watch: The same windows, as they are read: shows progress.

    Raises:
        InputError: Features are NaN or infinite or do not vary, or hardly any position is web.
    """
    geometry = windows[0].web.geometry
    assigned = assignment(options.tie, *size, geometry.lanes(options.lane_px))
    gaussians = int(assigned.max()) + 1
    moments = Moments(gaussians, dimension)
    sample = _Sample(gaussians, dimension, len(windows), options.seed) if options.components > 1 else None
    inside = iter(windows)
    for batch in reader.batches(window.read() for window in watch):
        for embeddings in batch:
            own = next(inside).inside().ravel()
            for group, vectors in _by_group(embeddings[own], assigned[own]):
                moments.add(group, vectors)
                if sample is not None:
                    sample.add(group, vectors)
    columns = assigned[: size[1]][geometry.core[1]]
    widths = np.maximum(1, np.bincount(columns, minlength=gaussians))
    seen, lenders = np.unique(nearest_seen(moments.count, widths), return_inverse=True)
    if sample is None:
        mixture = Mixture(moments.mean[seen][:, None], moments.covariance(seen)[:, None])
    else:
        mixture = fit_each(sample.values(seen), options.components, options.seed)
    mixture = Mixture(mixture.mean[lenders], mixture.covariance[lenders])
    if options.shrinkage is not None and not isinstance(options.shrinkage, str):
        shrink(mixture.covariance, options.shrinkage)
    # The most, so that no covariance is of a higher rank than that.
    return pack_statistics(mixture, assigned, int(moments.count.max()), options)


def nearest_seen(count: npt.NDArray[np.int64], widths: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Whose statistics each column, or lane, takes: its own, or those of the nearest one that was seen often enough.

    The ring is never seen, nor what lies outside the web; where an edge wanders, few lines show a column.

    Args:
        count: int64 (G,), how many embeddings of each were seen.
        widths: int (G,), columns that each could be seen in.

    Returns:
        (G,), numbers of groups.
    """
    share = count / widths
    often = np.flatnonzero((share >= _OFTEN * share.max()) & (count >= 2))
    if not often.size:
        return np.arange(count.size)
    behind = np.minimum(np.searchsorted(often, np.arange(count.size)), often.size - 1)
    before = np.maximum(behind - 1, 0)
    groups = np.arange(count.size)
    nearer = np.abs(often[before] - groups) <= np.abs(often[behind] - groups)
    return np.asarray(np.where(nearer, often[before], often[behind]), np.intp)


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

    def add(self, group: int, vectors: npt.NDArray[np.float32]) -> None:
        """Takes in vectors of a group, float32 (n, d), n >= 1.

        Raises:
            InputError: A vector is NaN or infinite.
        """
        values = vectors.astype(np.float64)
        mean = values.mean(axis=0)
        if not np.isfinite(mean).all():
            raise InputError("the network gives NaN or infinite features for this web; check weights and images")
        values -= mean
        before, added = int(self.count[group]), len(values)
        delta = mean - self.mean[group]
        self.scatter[group] += values.T @ values + np.outer(delta, delta) * (before * added / (before + added))
        self.mean[group] += delta * (added / (before + added))
        self.count[group] = before + added

    def covariance(self, groups: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """The unbiased covariances of some groups, float64 (n, d, d).

        Raises:
            InputError: A group has fewer than two vectors.
        """
        count = self.count[groups]
        if count.min() < 2:
            raise InputError(
                f"{int(count.min())} positions of the map show good web; expected 2 or more for a covariance: give more web"
            )
        covariance = self.scatter[groups]
        covariance /= (count - 1)[:, None, None]
        return covariance


class _Sample:
    """At most `SAMPLE` vectors of each group, as many from each window."""

    def __init__(self, groups: int, dimension: int, windows: int, seed: int) -> None:
        self._quota = max(1, -(-SAMPLE // windows))
        self._none = np.empty((0, dimension), np.float32)
        self._kept: list[list[npt.NDArray[np.float32]]] = [[] for _ in range(groups)]
        self._generator = np.random.Generator(np.random.Philox(key=seed))

    def add(self, group: int, vectors: npt.NDArray[np.float32]) -> None:
        if len(vectors) > self._quota:
            vectors = vectors[self._generator.choice(len(vectors), self._quota, replace=False)]
        self._kept[group].append(vectors)

    def values(self, groups: npt.NDArray[np.intp]) -> Iterable[npt.NDArray[np.float64]]:
        for group in groups.tolist():
            values = np.concatenate([*self._kept[group], self._none]).astype(np.float64)
            if len(values) > SAMPLE:
                values = values[self._generator.choice(len(values), SAMPLE, replace=False)]
            yield values


def _by_group(
    vectors: npt.NDArray[np.float32], groups: npt.NDArray[np.int32]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Vectors (n, d) of each group that has any."""
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    yield from zip(present.tolist(), np.split(vectors[order], starts[1:]), strict=True)
