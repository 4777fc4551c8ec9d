"""What the classifiers share: a trunk that gives deep features, and a linear layer that makes logits of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from flawline.detectors.autoencoder import ImageShape


class Classifier(nn.Module, ABC):
    """A network that tells classes of images apart. The softmax is left to the loss, as cross-entropy has it.

    Args:
        title: The network's name in messages and checkpoints.
        image_shape: Of what it takes.
        classes: How many there are, K.
        feature_dimension: Values in the deep features, d.
        layer: Name of the layer whose output, activated, the deep features are.
        mean: Of each channel of what the trunk takes, subtracted from pixels of 0 to 1. A grey image becomes as many
            channels as there are means.
        std: Of each channel, by which it is divided after that.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        title: str,
        image_shape: ImageShape,
        classes: int,
        feature_dimension: int,
        *,
        layer: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.title = title
        self.image_shape = image_shape
        self.classes = classes
        self.feature_dimension = feature_dimension
        self.layer = layer
        # They follow the network to a device, but published state dicts have no such names.
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    @property
    def architecture(self) -> str:
        """Everything that decides on the parameters' names and shapes, as checkpoints record it."""
        channels, height, width = self.image_shape
        return f"{self.title}, {height} x {width} px, {channels} channels, {self.classes} classes"

    @abstractmethod
    def trunk(self, normalised: Tensor) -> Tensor:
        """Maps normalised images, float32 (B, channels of the mean, height, width), to deep features, float32 (B, d)."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Maps deep features, float32 (B, d), to logits, float32 (B, K)."""

    def deep_features(self, image: Tensor) -> Tensor:
        """Maps images, float32 (B, channels, height, width) from 0 to 1, to deep features, float32 (B, d)."""
        return self.trunk((image - self.mean) / self.std)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images, float32 (B, channels, height, width) from 0 to 1, to logits, float32 (B, K)."""
        return self.logits(self.deep_features(image))
