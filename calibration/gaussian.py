"""Mean and covariance of embeddings, collected in one pass and mergeable."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

Tie = Literal["position", "column", "global"]
TIES: tuple[Tie, ...] = get_args(Tie)

_CHUNK_BYTES = 64 << 20


def assignment(tie: Tie, height: int, width: int) -> npt.NDArray[np.int32]:
    """Says which Gaussian scores which position of the map.

    Args:
        tie: `position`: one Gaussian per position; `column`: one per column, shared along the direction of travel;
            `global`: one for all.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        int32 (height * width,), row by row.
    """
    if tie == "position":
        return np.arange(height * width, dtype=np.int32)
    if tie == "column":
        return np.tile(np.arange(width, dtype=np.int32), height)
    return np.zeros(height * width, np.int32)


class Accumulator:
    """Count, mean and scatter of the embeddings of each Gaussian, in float64.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque (1983), so that the accumulator of a whole
    equals the merge of the accumulators of its parts to rounding.

    Args:
        assigned: int32 (P,), the Gaussian of each position; every Gaussian has the same number of positions.
        dimension: Channels d of an embedding.

    Attributes:
        count: Embeddings seen per Gaussian.
        mean: float64 (G, d).
        scatter: float64 (G, d, d), the sum of outer products of centred embeddings.
    """

    def __init__(self, assigned: npt.NDArray[np.int32], dimension: int) -> None:
        gaussians = int(assigned.max()) + 1
        self._order = np.argsort(assigned, kind="stable")
        self._positions = assigned.size // gaussians
        if not np.array_equal(assigned[self._order], np.repeat(np.arange(gaussians), self._positions)):
            raise InputError("every Gaussian needs the same number of positions")
        self.count = 0
        self.mean = np.zeros((gaussians, dimension))
        self.scatter = np.zeros((gaussians, dimension, dimension))

    def add(self, embeddings: npt.NDArray[np.float32]) -> None:
        """Takes in a batch of maps.

        Args:
            embeddings: float32 (B, P, d).

        Raises:
            InputError: An embedding is NaN or infinite.
        """
        batch, _, dimension = embeddings.shape
        count = batch * self._positions
        gaussians = len(self.mean)
        chunk = max(1, _CHUNK_BYTES // (count * dimension * 8 + dimension * dimension * 8))
        for start in range(0, gaussians, chunk):
            stop = min(start + chunk, gaussians)
            positions = self._order[start * self._positions : stop * self._positions]
            values = (
                embeddings[:, positions].astype(np.float64).reshape(batch, stop - start, self._positions, dimension)
            )
            values = values.transpose(1, 0, 2, 3).reshape(stop - start, count, dimension)
            mean = values.mean(axis=1)
            if not np.isfinite(mean).all():
                raise InputError(
                    "the network gives NaN or infinite features for these images; check weights and images"
                )
            values -= mean[:, None]
            scatter = values.transpose(0, 2, 1) @ values
            self._combine(slice(start, stop), count, mean, scatter)
        self.count += count

    def merge(self, other: "Accumulator") -> None:
        """Takes in what another accumulator of the same shape has seen."""
        if other.mean.shape != self.mean.shape:
            raise InputError(f"cannot merge accumulators of shapes {other.mean.shape} and {self.mean.shape}")
        if other.count:
            self._combine(slice(None), other.count, other.mean, other.scatter)
            self.count += other.count

    def covariance(self) -> npt.NDArray[np.float64]:
        """The unbiased covariance (Defard et al. 2020, equation 1, without its epsilon).

        Returns:
            float64 (G, d, d).

        Raises:
            InputError: Fewer than two embeddings per Gaussian were seen.
        """
        if self.count < 2:
            raise InputError(f"{self.count} embeddings per Gaussian; a covariance needs at least 2 images")
        return self.scatter / (self.count - 1)

    def _combine(
        self, part: slice, count: int, mean: npt.NDArray[np.float64], scatter: npt.NDArray[np.float64]
    ) -> None:
        total = self.count + count
        delta = mean - self.mean[part]
        self.scatter[part] += scatter
        self.scatter[part] += (delta[:, :, None] * delta[:, None, :]) * (self.count * count / total)
        self.mean[part] += delta * (count / total)
