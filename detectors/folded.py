"""Convolutions in inference form: the batch normalisation behind each is part of its weight and bias."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class FoldedConv2d(nn.Conv2d):
    """A convolution that has absorbed the batch normalisation behind it.

    Published state dicts keep the two apart; `flawline.detectors.weights` multiplies them out on loading.

    Args:
        batch_norm: The module, named from the convolution's own parent, that published state dicts normalise it with.
        eps: What that batch normalisation adds to the variance.
        padding: Rows and columns of zeros `(before, after)` on both axes. TensorFlow's networks need more after than
            before, which `torch.nn.Conv2d` cannot say.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        batch_norm: str,
        eps: float,
        padding: tuple[int, int],
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        before, after = padding
        symmetric = before if before == after else 0
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=symmetric, groups=groups)
        self.batch_norm = batch_norm
        self.eps = eps
        self.explicit_padding = None if before == after else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves `x`, float32 (B, in_channels, h, w)."""
        if self.explicit_padding is not None:
            x = functional.pad(x, self.explicit_padding)
        return super().forward(x)


class FeatureNetwork(nn.Module, ABC):
    """A network that returns the outputs of some of its layers, and computes nothing behind the last of them.

    Attributes:
        title: The network's name in messages.
        layers: Names of the returned layers, in the order in which they are returned.
        total_stride: Input pixels per position of the coarsest map. Inputs are multiples of it on both axes.
    """

    def __init__(self, title: str, layers: Sequence[str]) -> None:
        super().__init__()
        self.title = title
        self.layers = tuple(layers)
        self.total_stride = 1

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps a normalised image, float32 (B, 3, H, W), to one float32 (B, c, h, w) per layer."""

    @abstractmethod
    def is_behind(self, parameter: str) -> bool:
        """Whether a published parameter belongs to a part behind the last layer used, and is rightly left over."""

    def randomize(self, seed: int) -> None:
        """Fills the weights with He's normal distribution and the biases with zero: good for timing only."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
