"""What the autoencoders share: an encoder and a decoder of images of one shape, and their inference form."""

from __future__ import annotations

import copy
import itertools
from typing import NamedTuple, TypeVar

from torch import Tensor, nn
from torch.nn.utils import fusion

Module = TypeVar("Module", bound=nn.Module)


class ImageShape(NamedTuple):
    """Shape of an image in a network.

    Attributes:
        channels: 1 for grey, 3 for RGB.
        height: In pixels.
        width: In pixels.
    """

    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        """Numbers in an image."""
        return self.channels * self.height * self.width


class Autoencoder(nn.Module):
    """A network that squeezes an image through a bottleneck and reconstructs it.

    Args:
        title: The network's name in messages and checkpoints.
        image_shape: Of what it takes and gives.
        bottleneck: Values in a code.
        encoder: Maps float32 (B, channels, height, width) to codes, float32 (B, bottleneck).
        decoder: Maps the codes back.
    """

    def __init__(
        self, title: str, image_shape: ImageShape, bottleneck: int, encoder: nn.Module, decoder: nn.Module
    ) -> None:
        super().__init__()
        self.title = title
        self.image_shape = image_shape
        self.bottleneck = bottleneck
        self.encoder = encoder
        self.decoder = decoder

    @property
    def architecture(self) -> str:
        """Everything that decides on the parameters' names and shapes, as checkpoints record it."""
        channels, height, width = self.image_shape
        return f"{self.title}, {height} x {width} px, {channels} channels, bottleneck {self.bottleneck}"

    def forward(self, image: Tensor) -> Tensor:
        """Maps images, float32 (B, channels, height, width) from 0 to 1, to reconstructions of the same shape."""
        reconstruction: Tensor = self.decoder(self.encoder(image))
        return reconstruction


def fold_batch_norm(network: Module) -> Module:
    """A copy in inference form: each batch normalisation is part of the layer before it in its `nn.Sequential`.

    Args:
        network: Left as it is.

    Returns:
        The copy, in evaluation mode and without gradients. Its outputs are those of `network.eval()`, up to rounding.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, nn.Sequential):
            _fold_sequence(module)
    return folded


def _fold_sequence(sequence: nn.Sequential) -> None:
    layers = list(sequence.named_children())
    for (name, layer), (norm_name, norm) in itertools.pairwise(layers):
        if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            fused: nn.Module = fusion.fuse_linear_bn_eval(layer, norm)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            fused = fusion.fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
        else:
            continue
        setattr(sequence, name, fused)
        setattr(sequence, norm_name, nn.Identity())
