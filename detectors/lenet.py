"""LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition", 1998, figure 2), as it is used today.

Max pooling in place of averages with weights, ReLU in place of tanh, all maps connected to all, a linear output layer.
Images of 28 x 28 px are padded to the 32 x 32 of the paper by the first convolution.
"""

from torch import Tensor, nn
from torch.nn import functional

from flawline.detectors.autoencoder import ImageShape
from flawline.detectors.classifier import Classifier

SIDE_PX = 28
_MAPS = 16 * 5 * 5
_FEATURES = 84


class LeNet(Classifier):
    """LeNet-5 for images of 28 x 28 px. The deep features are the 84 values of `fc2` behind their ReLU.

    Args:
        classes: How many there are.
        channels: 1 for grey, 3 for RGB.
    """

    def __init__(self, classes: int, *, channels: int = 1) -> None:
        shape = ImageShape(channels, SIDE_PX, SIDE_PX)
        half = (0.5,) * channels
        super().__init__("lenet", shape, classes, _FEATURES, layer="fc2", mean=half, std=half)
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(_MAPS, 120)
        self.fc2 = nn.Linear(120, _FEATURES)
        self.fc3 = nn.Linear(_FEATURES, classes)

    def trunk(self, normalised: Tensor) -> Tensor:
        """Maps normalised images, float32 (B, channels, 28, 28), to deep features, float32 (B, 84)."""
        x = functional.max_pool2d(functional.relu(self.conv1(normalised)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return functional.relu(self.fc2(x))

    def logits(self, features: Tensor) -> Tensor:
        """Maps deep features, float32 (B, 84), to logits, float32 (B, classes)."""
        found: Tensor = self.fc3(features)
        return found
