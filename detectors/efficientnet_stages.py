"""The stages of EfficientNet-B0 (Tan and Le, "EfficientNet", 2019, table 1), which its Lite variant has too."""

from collections.abc import Iterator
from typing import NamedTuple


class Stage(NamedTuple):
    """A run of inverted residual blocks.

    Attributes:
        repeats: Blocks.
        kernel_size: Of the depthwise convolution.
        stride: Of the first block; the others have 1.
        expansion: Hidden channels per input channel.
        channels: What each block gives.
    """

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int

    def strides(self) -> Iterator[int]:
        """The stride of each block."""
        return (self.stride if block == 0 else 1 for block in range(self.repeats))


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
FEATURES = 1280
