"""One pass over good images through the exported graph, and the statistics that it yields."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flawline.calibration.gaussian import Accumulator, Tie, assignment
from flawline.calibration.mixture import Mixture, fit_mixtures
from flawline.calibration.shrinkage import ESTIMATORS, Estimator, shrink, shrink_each
from flawline.calibration.whitening import packed_factors, regularisation
from flawline.calibration.woodbury import Form, smaller_form, woodbury_factors
from flawline.runtime.errors import InputError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.kernels import Gaussians, Upsampling, embeddings

MAXIMUM_COMPONENTS = 1024
FactorType = Literal["fp16", "fp32", "int8"]
FACTOR_DTYPES: dict[FactorType, type[np.generic]] = {"fp16": np.float16, "fp32": np.float32, "int8": np.int8}


@dataclass(frozen=True, kw_only=True)
class StatisticsOptions:
    """How the good images are modelled.

    Attributes:
        tie: Which positions share a Gaussian.
        lane_px: For a web and the tie `column`: pixels across it that share one; None for a Gaussian per column.
        components: Gaussians per position, column or web; the smallest distance counts.
        epsilon: Regularisation of every covariance.
        epsilon_relative: Whether epsilon is relative to the mean feature variance.
        shrinkage: How far covariances are drawn towards a multiple of the identity first: not at all, by an
            estimator, or by a given share.
        factors: Type of the stored factors.
        form: Of the factors; None for Woodbury's where it saves a quarter of the bytes, else the triangle.
        seed: Seed of samples and mixtures.
    """

    tie: Tie = "position"
    lane_px: int | None = None
    components: int = 1
    epsilon: float = 0.01
    epsilon_relative: bool = True
    shrinkage: Estimator | float | None = None
    factors: FactorType = "fp16"
    form: Form | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what no images could make sense of."""
        if self.lane_px is not None and self.tie != "column":
            raise InputError(f"lanes of {self.lane_px} px with the tie {self.tie}; expected column (--tie column)")
        if not 1 <= self.components <= MAXIMUM_COMPONENTS:
            raise InputError(f"{self.components} components; expected 1 to {MAXIMUM_COMPONENTS}")
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(f"epsilon is {self.epsilon}; expected a positive number such as 0.01")
        if self.form == "woodbury" and self.components > 1:
            raise InputError("the Woodbury form is for one component; expected the form triangle for mixtures")
        if self.form == "woodbury" and self.factors == "int8":
            raise InputError(
                "int8 factors are too coarse for the Woodbury form; expected fp16 or fp32, or the form triangle"
            )
        if isinstance(self.shrinkage, str):
            if self.shrinkage not in ESTIMATORS:
                raise InputError(
                    f"shrinkage '{self.shrinkage}'; expected {', '.join(ESTIMATORS)} or a number from 0 to 1"
                )
            if self.components > 1:
                raise InputError(
                    f"shrinkage '{self.shrinkage}' is for one component; give a number from 0 to 1 instead"
                )
        elif self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise InputError(f"shrinkage is {self.shrinkage}; expected 0 to 1, {' or '.join(ESTIMATORS)}")

    @property
    def needs_sample(self) -> bool:
        """Whether embeddings must be kept, not only their mean and covariance."""
        return self.components > 1 or isinstance(self.shrinkage, str)


@dataclass(frozen=True)
class Statistics:
    """What was learnt from the good images.

    Attributes:
        gaussians: Packed, as the bundle ships them.
        mean: float64 (G, K, d).
        covariance: float64 (G, K, d, d), regularised: what the packed factors stand for.
    """

    gaussians: Gaussians
    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


class EmbeddingReader:
    """Frames to embeddings, through the graph and the summation that the device uses.

    Args:
        extractor: The network; its batch is the number of frames that are run at once.
        size: Height and width of the map.
        upsampling: How coarser scales reach that size.
        threads: Threads of the summation.
    """

    def __init__(
        self, extractor: FeatureExtractor, size: tuple[int, int], upsampling: Upsampling, *, threads: int
    ) -> None:
        self._extractor = extractor
        self._size = size
        self._upsampling = upsampling
        self._threads = threads

    def batches(self, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterable[npt.NDArray[np.float32]]:
        """Yields float32 (B, P, d), B frames at a time and the rest at the end."""
        batch = self._extractor.maps[0].shape[0]
        filled = 0
        for frame in frames:
            self._extractor.load(filled, frame)
            filled += 1
            if filled == batch:
                yield self._embed(filled)
                filled = 0
        if filled:
            yield self._embed(filled)

    def _embed(self, count: int) -> npt.NDArray[np.float32]:
        maps = [scale[:count] for scale in self._extractor.run()]
        return embeddings(maps, self._size, upsampling=self._upsampling, threads=self._threads)


def collect(
    reader: EmbeddingReader,
    frames: Iterable[npt.NDArray[np.uint8]],
    count: int,
    size: tuple[int, int],
    dimension: int,
    options: StatisticsOptions,
) -> Statistics:
    """Fits the statistics.

    Args:
        reader: Frames to embeddings.
        frames: The good frames.
        count: How many there are.
        size: Height and width of the map.
        dimension: Channels d of an embedding.
        options: How the images are modelled.

    Raises:
        InputError: Features are NaN or infinite or do not vary, or a covariance is singular.
    """
    if options.lane_px is not None:
        raise InputError(f"lanes of {options.lane_px} px are for webs; expected none for pictures")
    assigned = assignment(options.tie, *size)
    accumulator = Accumulator(assigned, dimension)
    sample = np.empty((count if options.needs_sample else 0, assigned.size, dimension), np.float32)
    seen = 0
    for batch in reader.batches(frames):
        accumulator.add(batch)
        if options.needs_sample:
            sample[seen : seen + len(batch)] = batch
        seen += len(batch)
    mixture = Mixture(accumulator.mean[:, None], accumulator.covariance(in_place=True)[:, None])
    if options.components > 1:
        mixture = fit_mixtures(sample, assigned, options.components, options.seed)
    if isinstance(options.shrinkage, str):
        shrink_each(mixture, options.shrinkage, sample, assigned, options.seed)
    elif options.shrinkage is not None:
        shrink(mixture.covariance, options.shrinkage)
    return pack_statistics(mixture, assigned, count * (assigned.size // len(mixture.mean)), options)


def pack_statistics(
    mixture: Mixture, assigned: npt.NDArray[np.int32], vectors: int, options: StatisticsOptions
) -> Statistics:
    """Regularises covariances and packs their factors.

    Args:
        mixture: Means and covariances; the covariances are changed.
        assigned: int32 (P,), the Gaussian of each position.
        vectors: Embeddings behind each covariance, about whose mean it was taken.
        options: How the images are modelled.

    Raises:
        InputError: Features do not vary, or a covariance is singular.
    """
    gaussians, components, dimension = mixture.mean.shape
    flat = mixture.covariance.reshape(gaussians * components, dimension, dimension)
    added = regularisation(flat, options.epsilon, relative=options.epsilon_relative)
    dtype = FACTOR_DTYPES[options.factors]
    form = options.form or ("triangle" if components > 1 else smaller_form(vectors, dimension, dtype))
    if form == "triangle":
        packed = packed_factors(flat, added, dtype)
    else:
        packed = woodbury_factors(flat, added, vectors - 1, dtype)
    diagonal = np.arange(dimension)
    flat[:, diagonal, diagonal] += added
    return Statistics(
        gaussians=Gaussians(
            means=np.ascontiguousarray(mixture.mean, np.float32),
            factors=packed.factors.reshape(gaussians, components, -1),
            scales=packed.scales.reshape(gaussians, components),
            assignment=assigned,
            row_scales=None if packed.row_scales is None else packed.row_scales.reshape(gaussians, components, -1),
            rank=packed.rank,
        ),
        mean=mixture.mean,
        covariance=mixture.covariance,
    )
