"""EfficientNet-B0 (Tan and Le, "EfficientNet", 2019, table 1), with torchvision's parameter names.

Blocks are those of MobileNetV2 with squeeze-and-excitation (Hu et al., 2018) and SiLU. As in torchvision, whose published
weights fit: every convolution is padded by half its kernel, in training a block's residual is left
out now and then (stochastic depth, up to nearly 0.2 at the last one), and a fifth of the deep features before the last layer.
"""

from torch import Tensor, nn

from flawline.detectors.autoencoder import ImageShape
from flawline.detectors.classifier import Classifier
from flawline.detectors.efficientnet_stages import FEATURES, STAGES, STEM_CHANNELS, Stage

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DROPOUT = 0.2
_DEEPEST_DROPOUT = 0.2


def _convolution(
    in_channels: int, channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1, activated: bool = True
) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    )
    return layers.append(nn.SiLU()) if activated else layers


class SqueezeExcitation(nn.Module):
    """Scales each channel by what its mean over the image, together with those of the others, says."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps float32 (B, channels, h, w) to the same shape."""
        squeezed = nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))
        scale: Tensor = self.fc2(squeezed).sigmoid()
        return x * scale


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter depthwise, weigh the channels, project linearly; added to the input if it fits.

    Args:
        in_channels: Of the input.
        stage: Which it is of.
        stride: Of the depthwise convolution.
        dropout: Probability that a residual is left out of an image's pass in training.
    """

    def __init__(self, in_channels: int, stage: Stage, stride: int, dropout: float) -> None:
        super().__init__()
        hidden = in_channels * stage.expansion
        self.block = nn.Sequential()
        if stage.expansion > 1:
            self.block.append(_convolution(in_channels, hidden, 1))
        self.block.append(_convolution(hidden, hidden, stage.kernel_size, stride=stride, groups=hidden))
        self.block.append(SqueezeExcitation(hidden, in_channels // 4))
        self.block.append(_convolution(hidden, stage.channels, 1, activated=False))
        self._dropout = dropout
        self._is_residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps float32 (B, in_channels, h, w) to (B, channels, h / stride, w / stride)."""
        y: Tensor = self.block(x)
        if not self._is_residual:
            return y
        if self.training and self._dropout:
            kept = 1 - self._dropout
            y = y * y.new_empty(len(y), 1, 1, 1).bernoulli_(kept).div_(kept)
        return x + y


class EfficientNetB0(Classifier):
    """EfficientNet-B0. The deep features are the 1,280 means over the image behind the last convolution.

    Args:
        classes: How many there are.
        channels: 1 for grey, which becomes three alike, or 3 for RGB.
        side_px: Height and width of the images, a multiple of 32.
    """

    def __init__(self, classes: int, *, channels: int = 3, side_px: int = 224) -> None:
        shape = ImageShape(channels, side_px, side_px)
        super().__init__(
            "efficientnet-b0", shape, classes, FEATURES, layer="avgpool", mean=_IMAGENET_MEAN, std=_IMAGENET_STD
        )
        count, number, in_channels = sum(stage.repeats for stage in STAGES), 0, STEM_CHANNELS
        self.features = nn.Sequential(_convolution(len(_IMAGENET_MEAN), STEM_CHANNELS, 3, stride=2))
        for stage in STAGES:
            blocks = nn.Sequential()
            for stride in stage.strides():
                dropout = _DEEPEST_DROPOUT * number / count
                blocks.append(InvertedResidual(in_channels, stage, stride, dropout))
                in_channels, number = stage.channels, number + 1
            self.features.append(blocks)
        self.features.append(_convolution(in_channels, FEATURES, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(FEATURES, classes))

    def trunk(self, normalised: Tensor) -> Tensor:
        """Maps normalised images, float32 (B, 3, height, width), to deep features, float32 (B, 1280)."""
        means: Tensor = self.avgpool(self.features(normalised))
        return means.flatten(1)

    def logits(self, features: Tensor) -> Tensor:
        """Maps deep features, float32 (B, 1280), to logits, float32 (B, classes)."""
        found: Tensor = self.classifier(features)
        return found
