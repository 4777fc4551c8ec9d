"""The second head of a classifier: from deep features to the probability that an image is normal."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from flawline.detectors.autoencoder import ImageShape

_UNITS = 256


class SecondHead(nn.Module):
    """Fully connected layers of 256, 256 and 1 units, ReLU between and a sigmoid at the end.

    Args:
        dimension: Values in the deep features, d.
        seed: Of the weights, which are torch's default initialisation.

    Attributes:
        image_shape: Deep features, as a bundle has them: d channels of one pixel.
        architecture: What checkpoints record.
    """

    def __init__(self, dimension: int, *, seed: int = 0) -> None:
        super().__init__()
        self.image_shape = ImageShape(dimension, 1, 1)
        self.architecture = f"second head of {dimension} features"
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                OrderedDict(
                    fc1=nn.Linear(dimension, _UNITS),
                    relu1=nn.ReLU(),
                    fc2=nn.Linear(_UNITS, _UNITS),
                    relu2=nn.ReLU(),
                    fc3=nn.Linear(_UNITS, 1),
                )
            )

    def logits(self, features: Tensor) -> Tensor:
        """Maps deep features, float32 (B, d) or (B, d, 1, 1), to what the sigmoid takes, float32 (B, 1)."""
        found: Tensor = self.layers(features.flatten(1))
        return found

    def forward(self, features: Tensor) -> Tensor:
        """Maps deep features, float32 (B, d) or (B, d, 1, 1), to the probability of being normal, float32 (B, 1)."""
        return self.logits(features).sigmoid()
