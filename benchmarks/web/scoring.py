"""Statistics and anomaly maps of strips from their stored features, by the parts that fit and stream are made of."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.web.features import RollFeatures, StripFeatures
from flawline.calibration import projections
from flawline.calibration.mixture import SAMPLE, Mixture, fit_each
from flawline.calibration.statistics import StatisticsOptions, pack_statistics
from flawline.calibration.web_statistics import Moments
from flawline.runtime.errors import InputError
from flawline.runtime.kernels import Gaussians, mahalanobis
from flawline.runtime.web.stitching import Stitcher
from flawline.runtime.web.strips import Strip

Floats = npt.NDArray[np.float32]


class ProjectedRoll:
    """The strips of a roll after a projection of some layers.

    Args:
        roll: Their features.
        layers: Numbers of the layers.
        dimension: Channels that remain.
        seed: Of the projection.
        kind: Of projection.
    """

    def __init__(
        self,
        roll: RollFeatures,
        layers: Sequence[int],
        dimension: int,
        seed: int,
        kind: projections.Kind = "orthogonal",
    ) -> None:
        self.roll = roll
        starts = np.cumsum((0, *roll.channels))
        self._channels = np.concatenate([np.arange(starts[layer], starts[layer + 1]) for layer in layers])
        self._matrix = projections.matrix(
            kind, input_dimension=self._channels.size, dimension=dimension, seed=seed
        ).T.copy()
        self._vectors: dict[int, Floats] = {}

    def vectors(self, strip: int) -> Floats:
        """Of a strip, float32 (P, d); kept."""
        if strip not in self._vectors:
            stored = np.load(self.roll.strips[strip].path, mmap_mode="r")
            every = self._channels.size == stored.shape[1]
            values = (stored if every else stored[:, self._channels]).astype(np.float32)
            self._vectors[strip] = values @ self._matrix
        return self._vectors[strip]


def fit(projected: ProjectedRoll, chosen: Mapping[int, npt.NDArray[np.bool_]], options: StatisticsOptions) -> Gaussians:
    """One model for all positions of the web.

    Args:
        projected: The strips of the roll.
        chosen: bool (h, w) for each strip that is fitted: its flawless web.
        options: How it is modelled.

    Raises:
        InputError: There is too little web, or its features do not vary.
    """
    generator = np.random.Generator(np.random.Philox(key=options.seed))
    quota = -(-SAMPLE // len(chosen))
    sample = []
    moments: Moments | None = None
    for strip, positions in chosen.items():
        vectors = projected.vectors(strip)[positions.ravel()]
        if not len(vectors):
            continue
        moments = moments or Moments(1, vectors.shape[1])
        moments.add(0, vectors)
        few = generator.choice(len(vectors), min(quota, len(vectors)), replace=False)
        sample.append(vectors[few])
    if moments is None:
        raise InputError("no flawless web lies between the edges that were found: give more of it, or a smaller margin")
    if options.components > 1:
        mixture = fit_each([np.concatenate(sample).astype(np.float64)], options.components, options.seed)
    else:
        mixture = Mixture(moments.mean[:, None], moments.covariance(np.zeros(1, np.intp))[:, None])
    assigned = np.zeros(next(iter(chosen.values())).size, np.int32)
    return pack_statistics(mixture, assigned, int(moments.count[0]), options).gaussians


class TileScores:
    """Scores of the tiles of strips: the maximum of the smoothed map of what is web.

    Args:
        roll: The strips.
        tile_px: Height and width of a tile, pixels of the network's input.
        smoothing_px: Standard deviation of the map's Gaussian, likewise.
        margin_px: Masked inside each edge of the web, likewise.
    """

    def __init__(self, roll: RollFeatures, tile_px: int, smoothing_px: float, margin_px: int) -> None:
        self._roll, self._tile = roll, tile_px // roll.geometry.map_stride
        sigma = smoothing_px / roll.geometry.map_stride
        self._stitcher = Stitcher(roll.geometry, roll.width, sigma, margin_px)
        self._map = np.zeros((1, *roll.geometry.map_size), np.float32)

    def __call__(self, vectors: Floats, strip: StripFeatures, gaussians: Gaussians, threads: int) -> Floats:
        """Scores a strip.

        Args:
            vectors: float32 (P, d).
            strip: Whose they are.
            gaussians: The model.
            threads: Threads of the kernel.

        Returns:
            float32 (rows, columns) of tiles; NaN where none of the tile is web.
        """
        core = self._map[0][self._roll.geometry.core]
        core[...] = mahalanobis(vectors[None], gaussians, threads=threads).reshape(core.shape)
        lines = len(strip.left)
        window = np.empty((0, 0), np.uint8)
        rows = self._stitcher.add(Strip(0, 0, lines, True, lines, window, strip.left, strip.right), self._map)
        return _maxima(np.where(rows.mask, rows.values, -np.inf), self._tile)


def spread(tiles: npt.NDArray[np.bool_], size: tuple[int, int], cells: int) -> npt.NDArray[np.bool_]:
    """What is so of tiles, of the positions in them: bool (h, w) from bool (rows, columns)."""
    inside = np.zeros(size, np.bool_)
    positions = tiles.repeat(cells, axis=0).repeat(cells, axis=1)[: size[0], : size[1]]
    inside[: positions.shape[0], : positions.shape[1]] = positions
    return inside


def _maxima(values: Floats, cells: int) -> Floats:
    rows = np.maximum.reduceat(values, np.arange(0, values.shape[0], cells), axis=0)
    maxima = np.maximum.reduceat(rows, np.arange(0, values.shape[1], cells), axis=1)
    return np.where(np.isneginf(maxima), np.nan, maxima).astype(np.float32)
