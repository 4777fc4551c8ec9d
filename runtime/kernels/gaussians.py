"""The Gaussians that say what is normal, in the form in which the kernels read them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.checks import require
from flawline.runtime.kernels.packing import packed_size


@dataclass(frozen=True, eq=False)
class Gaussians:
    """G Gaussians of K components each, and which of them scores which output.

    The distance of a vector x to a Gaussian is the smallest over its components of ``scale * ||W (x - mean)||``, where
    W is the inverse of the Cholesky factor of the component's covariance, divided by the scale. The arrays are used
    where they are (also memory-mapped ones), never copied.

    Attributes:
        means: float32 (G, K, d).
        factors: float16 or float32 (G, K, packed_size(d)): W as `flawline.runtime.kernels.pack` stores it.
        scales: float32 (G, K), positive. A power of two per component keeps fp16 factors in their normal range.
        assignment: int32 (P,): the Gaussian, 0 .. G - 1, of each output: of each position of a map, or of each class.

    Raises:
        InputError: An array has another dtype, shape or layout, a mean is not finite, a scale is not positive and
            finite, or the assignment names a Gaussian that does not exist.
    """

    means: npt.NDArray[np.float32]
    factors: npt.NDArray[np.floating[Any]]
    scales: npt.NDArray[np.float32]
    assignment: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        require("means", self.means, np.float32, ("G", "K", "d"))
        count, components, dimension = self.means.shape
        require("factors", self.factors, (np.float16, np.float32), (count, components, packed_size(dimension)))
        require("scales", self.scales, np.float32, (count, components))
        require("assignment", self.assignment, np.int32, ("P",))
        if not np.isfinite(self.means).all():
            raise InputError("means: received NaN or infinity, expected finite numbers")
        if not (np.isfinite(self.scales) & (self.scales > 0)).all():
            raise InputError("scales: received one that is not a positive finite number")
        lowest, highest = int(self.assignment.min()), int(self.assignment.max())
        if lowest < 0 or highest >= count:
            raise InputError(f"assignment: received {lowest} .. {highest}, expected 0 .. {count - 1}")

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
