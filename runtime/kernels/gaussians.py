"""The Gaussians that say what is normal, in the form in which the kernels read them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.checks import require, require_count
from flawline.runtime.kernels.packing import packed_size, padded_rows


@dataclass(frozen=True, eq=False)
class Gaussians:
    """G Gaussians of K components each, and which of them scores which output.

    The distance of a vector x to a Gaussian is the smallest over its components, with z = x - mean, of

    - ``scale * ||W z||`` in the form "triangle": W is the inverse of the Cholesky factor of the component's covariance,
      divided by the scale;
    - ``scale * sqrt(max(0, ||z||^2 - ||R z||^2))`` in the form "woodbury", for a covariance of rank r < d plus a multiple
      of the identity: R has r rows, and the scale is 1 / sqrt(that multiple). A difference of two large numbers: see
      `flawline.calibration.woodbury`.

    The arrays are used where they are (also memory-mapped ones), never copied.

    Attributes:
        means: float32 (G, K, d).
        factors: float16, float32 or int8 (G, K, packed_size(d, rank)): W or R as `flawline.runtime.kernels.pack` stores it.
        scales: float32 (G, K), positive. In a triangle, a power of two per component keeps fp16 factors in their normal
            range.
        assignment: int32 (P,): the Gaussian, 0 .. G - 1, of each output: of each position of a map, or of each class.
        row_scales: float16 (G, K, padded_rows(d, rank)), not negative: what the rows of int8 factors are multiplied by;
            None for the other types.
        rank: Rows r of R in the form "woodbury"; None for "triangle".

    Raises:
        InputError: An array has another dtype, shape or layout, a mean is not finite, a scale is not positive and
            finite, a row scale is negative or not finite, int8 factors lack row scales or others have them, the rank is
            not 1 .. d, or the assignment names a Gaussian that does not exist.
    """

    means: npt.NDArray[np.float32]
    factors: npt.NDArray[np.floating[Any]] | npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    assignment: npt.NDArray[np.int32]
    row_scales: npt.NDArray[np.float16] | None = None
    rank: int | None = None

    def __post_init__(self) -> None:
        require("means", self.means, np.float32, ("G", "K", "d"))
        count, components, dimension = self.means.shape
        if self.rank is not None:
            require_count("rank", self.rank)
        size = packed_size(dimension, self.rank)
        require("factors", self.factors, (np.float16, np.float32, np.int8), (count, components, size))
        require("scales", self.scales, np.float32, (count, components))
        require("assignment", self.assignment, np.int32, ("P",))
        if not np.isfinite(self.means).all():
            raise InputError("means: received NaN or infinity, expected finite numbers")
        if not (np.isfinite(self.scales) & (self.scales > 0)).all():
            raise InputError("scales: received one that is not a positive finite number")
        self._check_row_scales((count, components, padded_rows(dimension, self.rank)))
        lowest, highest = int(self.assignment.min()), int(self.assignment.max())
        if lowest < 0 or highest >= count:
            raise InputError(f"assignment: received {lowest} .. {highest}, expected 0 .. {count - 1}")

    def _check_row_scales(self, shape: tuple[int, int, int]) -> None:
        if self.factors.dtype != np.int8:
            if self.row_scales is not None:
                raise InputError(f"row_scales: received some for {self.factors.dtype} factors, expected None")
            return
        require("row_scales", self.row_scales, np.float16, shape)
        if self.row_scales is None or not (np.isfinite(self.row_scales) & (self.row_scales >= 0)).all():
            raise InputError("row_scales: received one that is negative or not finite")

    @property
    def form(self) -> Literal["triangle", "woodbury"]:
        """How distances follow from the factors."""
        return "triangle" if self.rank is None else "woodbury"

    @property
    def count(self) -> int:
        """G, the number of Gaussians."""
        return int(self.means.shape[0])

    @property
    def components(self) -> int:
        """K, the components of each Gaussian."""
        return int(self.means.shape[1])

    @property
    def dimension(self) -> int:
        """The dimension d of the vectors that are scored."""
        return int(self.means.shape[2])

    @property
    def outputs(self) -> int:
        """P, the number of distances per frame."""
        return int(self.assignment.shape[0])

    def processing_order(self, group: int) -> npt.NDArray[np.int32]:
        """The outputs, group by group, and inside a group by Gaussian, so that a factor is read once for all its vectors.

        Args:
            group: Outputs that are worked on together; consecutive ones.

        Returns:
            int32 (P,).
        """
        if np.all(self.assignment[1:] >= self.assignment[:-1]):
            return np.arange(self.outputs, dtype=np.int32)
        return np.lexsort((self.assignment, np.arange(self.outputs) // group)).astype(np.int32)

    @cached_property
    def order(self) -> npt.NDArray[np.int32]:
        """The processing order of all outputs as one group; found once, since it takes longer than to score some."""
        return self.processing_order(self.outputs)
