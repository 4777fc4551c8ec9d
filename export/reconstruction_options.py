"""What shapes the bundle of a reconstruction detector besides the images."""

import math
from dataclasses import dataclass
from pathlib import Path

from flawline.export.options import ImageOptions
from flawline.runtime.errors import InputError
from flawline.runtime.images import SMALLEST_SIDE_PX
from flawline.runtime.kernels.pse import MOST_SIGMA_PX

MOST_SIDE_PX = 4096
# At a quarter of a side, taps of 2 sigma to either side are as wide as the image: what is then left is its mean.
_WIDEST_SHARE = 4


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions(ImageOptions):
    """What all of these detectors have in common.

    Attributes:
        image_size: Height and width that images are brought to, px.
        sigma: Standard deviation of the Gaussian of the proximally sensitive error, px of that size; None leaves it to the
            detector.
        normalised: Whether its taps are scaled to sum 1, so that errors of different sigma compare; else equation 4.
    """

    image_size: int = 128
    sigma: float | None = None
    normalised: bool = True

    def __post_init__(self) -> None:
        """Refuses numbers that no images could make sense of."""
        super().__post_init__()
        if not SMALLEST_SIDE_PX <= self.image_size <= MOST_SIDE_PX:
            raise InputError(
                f"--image-size is {self.image_size} px; expected {SMALLEST_SIDE_PX} to {MOST_SIDE_PX}, such as 128"
            )
        if self.sigma is not None and not (math.isfinite(self.sigma) and 0 <= self.sigma <= self.widest_sigma):
            raise InputError(
                f"--sigma is {self.sigma:g} px for images of {self.image_size} px; expected 0 (each pixel by itself) to "
                f"{self.widest_sigma:g}, {self._what_bounds_sigma}"
            )

    @property
    def widest_sigma(self) -> float:
        """The largest sigma that makes sense in these images, and that the error is computed with, px."""
        return min(self.image_size / _WIDEST_SHARE, MOST_SIGMA_PX)

    @property
    def _what_bounds_sigma(self) -> str:
        if self.widest_sigma == MOST_SIGMA_PX:
            return "the widest Gaussian that the error is computed with"
        return "where the Gaussian is as wide as the image"


@dataclass(frozen=True, kw_only=True)
class PcaOptions(ReconstructionOptions):
    """What shapes a bundle of principal components.

    Attributes:
        components: Number of principal components, fewer than images are fitted; chosen if None. So is `sigma`.
        few_shot: Folder of a few labelled images to choose by: `good` and other folders, or `test/good` and `test/KIND`; None
            to choose by good images alone.
        shots: At most so many of each of its folders are drawn. The paper takes five (Gudi and others, 2022, section 4.1).
    """

    components: int | None = None
    few_shot: Path | None = None
    shots: int = 5

    def __post_init__(self) -> None:
        """Refuses numbers that no images could make sense of, and labels where nothing is to be chosen."""
        super().__post_init__()
        if self.components is not None and not 1 <= self.components < 1 << 16:
            raise InputError(f"--components is {self.components}; expected 1 or more, and fewer than images")
        if self.shots < 1:
            raise InputError(f"--shots is {self.shots}; expected 1 or more labelled images of each kind")
        if self.few_shot is not None and self.components is not None and self.sigma is not None:
            raise InputError(
                "--few-shot with both --components and --sigma leaves nothing to choose; leave out what is to be chosen"
            )
