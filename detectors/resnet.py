"""ResNet-18 and Wide ResNet-50-2 up to a layer, with torchvision's parameter names.

Architecture: He et al., "Deep Residual Learning for Image Recognition", 2015, table 1; Zagoruyko and Komodakis, "Wide
Residual Networks", 2016. As in torchvision the stride of a bottleneck is on its 3x3 convolution.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from flawline.detectors.folded import FeatureNetwork, FoldedConv2d
from flawline.runtime.errors import InputError

_EPS = 1e-5
_STEM_CHANNELS = 64
_STAGE_CHANNELS = (64, 128, 256, 512)


def _conv(in_channels: int, out_channels: int, kernel_size: int, batch_norm: str, stride: int = 1) -> FoldedConv2d:
    padding = kernel_size // 2
    return FoldedConv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=(padding, padding),
        batch_norm=batch_norm,
        eps=_EPS,
    )


class _Residual(nn.Module):
    """A residual block; the shortcut is projected where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.downsample = (
            nn.Sequential(_conv(in_channels, out_channels, 1, "1", stride))
            if stride != 1 or in_channels != out_channels
            else None
        )

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(_Residual):
    """Two 3x3 convolutions."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv1 = _conv(in_channels, channels, 3, "bn1", stride)
        self.conv2 = _conv(channels, channels, 3, "bn2")
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps float32 (B, c, h, w) to (B, out_channels, h / stride, w / stride)."""
        y = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(y + self.shortcut(x))


class WideBottleneck(_Residual):
    """1x1, 3x3 and 1x1 convolutions; the inner ones are twice as wide as in ResNet-50."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, 4 * channels, stride)
        width = 2 * channels
        self.conv1 = _conv(in_channels, width, 1, "bn1")
        self.conv2 = _conv(width, width, 3, "bn2", stride)
        self.conv3 = _conv(width, 4 * channels, 1, "bn3")
        self.out_channels = 4 * channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps float32 (B, c, h, w) to (B, out_channels, h / stride, w / stride)."""
        y = functional.relu(self.conv1(x))
        y = self.conv3(functional.relu(self.conv2(y)))
        return functional.relu(y + self.shortcut(x))


class ResNet(FeatureNetwork):
    """A ResNet up to the last of the given layers.

    Args:
        title: The network's name in messages.
        block: The kind of residual block.
        repeats: Blocks in `layer1` to `layer4`.
        layers: Layers whose outputs are returned, `layer1` to `layer4`.

    Raises:
        InputError: A layer of another name.
    """

    def __init__(
        self, title: str, block: type[BasicBlock] | type[WideBottleneck], repeats: Sequence[int], layers: Sequence[str]
    ) -> None:
        super().__init__(title, layers)
        names = [f"layer{i + 1}" for i in range(len(repeats))]
        if not layers or not set(layers) <= set(names):
            raise InputError(f"layers {', '.join(layers) or '(none)'}: {title} has {', '.join(names)}")
        self._stages = names[: max(names.index(name) for name in layers) + 1]
        self.conv1 = _conv(3, _STEM_CHANNELS, 7, "bn1", stride=2)
        self.total_stride = 4
        in_channels = _STEM_CHANNELS
        for i, name in enumerate(self._stages):
            stride = 1 if i == 0 else 2
            stage = nn.Sequential()
            for j in range(repeats[i]):
                residual = block(in_channels, _STAGE_CHANNELS[i], stride if j == 0 else 1)
                in_channels = residual.out_channels
                stage.append(residual)
            self.add_module(name, stage)
            self.total_stride *= stride

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps a normalised image, float32 (B, 3, H, W), to one float32 (B, c, h, w) per layer."""
        x = functional.max_pool2d(functional.relu(self.conv1(image)), 3, stride=2, padding=1)
        outputs = {}
        for name in self._stages:
            x = self.get_submodule(name)(x)
            outputs[name] = x
        return tuple(outputs[name] for name in self.layers)

    def is_behind(self, parameter: str) -> bool:
        """Whether a published parameter belongs to a later layer or to the classifier."""
        top = parameter.partition(".")[0]
        return top == "fc" or (top.startswith("layer") and top not in self._stages)


def resnet18(layers: Sequence[str]) -> ResNet:
    """ResNet-18 up to the last of `layers`."""
    return ResNet("resnet18", BasicBlock, (2, 2, 2, 2), layers)


def wide_resnet50_2(layers: Sequence[str]) -> ResNet:
    """Wide ResNet-50-2 up to the last of `layers`."""
    return ResNet("wide-resnet50-2", WideBottleneck, (3, 4, 6, 3), layers)
