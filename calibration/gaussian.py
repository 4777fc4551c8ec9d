"""Mean and covariance of embeddings, collected in one pass and mergeable."""

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

Tie = Literal["position", "column", "global"]
TIES: tuple[Tie, ...] = get_args(Tie)

# Small enough for the second-level cache: a batch is added in several short passes over it.
_CHUNK_BYTES = 2 << 20


def assignment(
    tie: Tie, height: int, width: int, columns: npt.NDArray[np.int32] | None = None
) -> npt.NDArray[np.int32]:
    """Says which Gaussian scores which position of the map.

    Args:
        tie: `position`: one Gaussian per position; `column`: one per column, shared along the direction of travel;
            `global`: one for all.
        height: Rows of the map.
        width: Columns of the map.
        columns: int32 (width,), for `column`: the Gaussian of each; one of its own if None.

    Returns:
        int32 (height * width,), row by row.
    """
    if tie == "position":
        return np.arange(height * width, dtype=np.int32)
    if tie == "column":
        return np.tile(np.arange(width, dtype=np.int32) if columns is None else columns, height)
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
        chunk = max(1, _CHUNK_BYTES // ((count + dimension) * dimension * 8))
        for start in range(0, gaussians, chunk):
            part = slice(start, min(start + chunk, gaussians))
            positions = self._order[part.start * self._positions : part.stop * self._positions]
            values = embeddings[:, positions].reshape(batch, -1, self._positions, dimension)
            rows = np.empty((part.stop - part.start, count + 1, dimension))
            rows[:, :count] = values.transpose(1, 0, 2, 3).reshape(-1, count, dimension)
            mean = rows[:, :count].mean(axis=1)
            if not np.isfinite(mean).all():
                raise InputError(
                    "the network gives NaN or infinite features for these images; check weights and images"
                )
            rows[:, :count] -= mean[:, None]
            # The update's outer product of means is one more row of the product, not a pass of its own.
            delta = mean - self.mean[part]
            rows[:, count] = delta * math.sqrt(self.count * count / (self.count + count))
            self.scatter[part] += rows.transpose(0, 2, 1) @ rows
            self.mean[part] += delta * (count / (self.count + count))
        self.count += count

    def merge(self, other: "Accumulator") -> None:
        """Takes in what another accumulator of the same shape has seen."""
        if other.mean.shape != self.mean.shape:
            raise InputError(f"cannot merge accumulators of shapes {other.mean.shape} and {self.mean.shape}")
        total = self.count + other.count
        if total:
            delta = other.mean - self.mean
            outer = delta[:, :, None] * delta[:, None, :]
            self.scatter += other.scatter + outer * (self.count * other.count / total)
            self.mean += delta * (other.count / total)
            self.count = total

    def covariance(self, *, in_place: bool = False) -> npt.NDArray[np.float64]:
        """The unbiased covariance (Defard et al. 2020, equation 1, without its epsilon).

        Args:
            in_place: Turn the scatter into it, which saves its memory and ends the accumulator.

        Returns:
            float64 (G, d, d).

        Raises:
            InputError: Fewer than two embeddings per Gaussian were seen.
        """
        if self.count < 2:
            raise InputError(f"{self.count} embeddings per Gaussian; a covariance needs at least 2 images")
        return np.divide(self.scatter, self.count - 1, out=self.scatter if in_place else None)
