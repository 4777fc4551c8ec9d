"""The convolutional autoencoder of Feeney and Hughes, "Evaluating the Use of Reconstruction Error", 2021.

Stated there: "the convolutional autoencoder architecture for MNIST from Abati et al., omitting their additional latent
space model", trained with the mean squared error; nothing else. Filled in here from Abati et al., "Latent Space
Autoregression for Novelty Detection", CVPR 2019, and the network that its authors published: residual blocks that halve
or double the sides, of 32 and 64 channels down, 32 and 16 up; batch normalisation behind every layer but the last of each
half; leaky ReLU (slope 0.01); fully connected layers of 64 units to a code with a sigmoid and back; a 1x1 convolution
without activation at the end. Neither paper gives the length of the code (64 by default), and the sides of MNIST's 28 x 28
images are the only ones they use: others, and colour, are as wide as the same layers make them.
"""

from collections import OrderedDict

from torch import Tensor, nn

from flawline.detectors.autoencoder import Autoencoder, ImageShape

_STRIDE = 4
_DOWN = (32, 64)
_UP = (32, 16)
_UNITS = 64


class Residual(nn.Module):
    """Two convolutions and, beside them, a 1x1 convolution of the same stride; leaky ReLU between and behind.

    Args:
        first: Changes the channels and the sides.
        second: A 3x3 convolution.
        shortcut: Changes the channels and the sides likewise.
        channels: What all three give.
    """

    def __init__(self, first: nn.Module, second: nn.Module, shortcut: nn.Module, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            OrderedDict(
                first=first,
                first_norm=nn.BatchNorm2d(channels),
                activation=nn.LeakyReLU(),
                second=second,
                second_norm=nn.BatchNorm2d(channels),
            )
        )
        self.shortcut = nn.Sequential(OrderedDict(projection=shortcut, norm=nn.BatchNorm2d(channels)))
        self.activation = nn.LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps float32 (B, c, h, w) to (B, channels, h', w')."""
        activated: Tensor = self.activation(self.convolutions(x) + self.shortcut(x))
        return activated


def _halving(channels_in: int, channels: int) -> Residual:
    return Residual(
        nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.Conv2d(channels_in, channels, 1, stride=2, bias=False),
        channels,
    )


def _doubling(channels_in: int, channels: int) -> Residual:
    return Residual(
        nn.ConvTranspose2d(channels_in, channels, 5, stride=2, padding=2, output_padding=1, bias=False),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.ConvTranspose2d(channels_in, channels, 1, stride=2, output_padding=1, bias=False),
        channels,
    )


def convolutional_autoencoder(image_shape: ImageShape, bottleneck: int) -> Autoencoder:
    """Residual blocks around fully connected layers.

    Args:
        image_shape: Height and width are multiples of 4 px.
        bottleneck: Values in a code.
    """
    channels, height, width = image_shape
    deepest = ImageShape(_DOWN[-1], height // _STRIDE, width // _STRIDE)
    encoder = nn.Sequential(
        OrderedDict(
            down_1=_halving(channels, _DOWN[0]),
            down_2=_halving(_DOWN[0], _DOWN[1]),
            values=nn.Flatten(),
            hidden=nn.Linear(deepest.values, _UNITS),
            hidden_norm=nn.BatchNorm1d(_UNITS),
            activation=nn.LeakyReLU(),
            code=nn.Linear(_UNITS, bottleneck),
            code_activation=nn.Sigmoid(),
        )
    )
    decoder = nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(bottleneck, _UNITS),
            hidden_norm=nn.BatchNorm1d(_UNITS),
            hidden_activation=nn.LeakyReLU(),
            expand=nn.Linear(_UNITS, deepest.values),
            expand_norm=nn.BatchNorm1d(deepest.values),
            expand_activation=nn.LeakyReLU(),
            maps=nn.Unflatten(1, tuple(deepest)),
            up_1=_doubling(deepest.channels, _UP[0]),
            up_2=_doubling(_UP[0], _UP[1]),
            output=nn.Conv2d(_UP[1], channels, 1, bias=False),
        )
    )
    return Autoencoder("convolutional", image_shape, bottleneck, encoder, decoder)
