"""The autoencoders by name: the paper each is from, and how to build one. Imports torch only to build one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flawline.runtime.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from flawline.detectors.autoencoder import Autoencoder

_MOST_VALUES = 1 << 31


@dataclass(frozen=True)
class AutoencoderDescription:
    """What an autoencoder is.

    Attributes:
        name: Name on the command line, in bundles and in checkpoints.
        paper: Where it is from.
        bottleneck: Default number of values in a code.
        stride: Heights and widths are multiples of it, in pixels.
    """

    name: str
    paper: str
    bottleneck: int
    stride: int


AUTOENCODERS = {
    description.name: description
    for description in (
        AutoencoderDescription(
            name="fully-connected",
            paper="Gudi et al., Proximally Sensitive Error for Anomaly Detection and Feature Learning, 2022, section 4.2",
            bottleneck=64,
            stride=1,
        ),
        AutoencoderDescription(
            name="convolutional",
            paper="Feeney and Hughes, Evaluating the Use of Reconstruction Error for Novelty Localization, 2021",
            bottleneck=64,
            stride=4,
        ),
    )
}


def build_autoencoder(
    name: str, height: int, width: int, *, channels: int = 1, bottleneck: int | None = None, seed: int = 0
) -> Autoencoder:
    """Builds an autoencoder with fresh weights, in training mode.

    Args:
        name: One of `AUTOENCODERS`.
        height: Of the images, in pixels.
        width: Likewise.
        channels: 1 for grey, 3 for RGB.
        bottleneck: Values in a code; the network's default if None.
        seed: Of the weights, which are torch's default initialisation: the same for the same seed and version of torch.
            Torch's global generator is left as it was.

    Raises:
        InputError: An unknown name, a size that does not fit the network, or no channels or bottleneck that can be.
        MissingExtraError: torch is not installed.
    """
    if name not in AUTOENCODERS:
        raise InputError(f"autoencoder {name}: expected one of {', '.join(AUTOENCODERS)}")
    description = AUTOENCODERS[name]
    code = description.bottleneck if bottleneck is None else bottleneck
    if channels not in (1, 3):
        raise InputError(f"images of {channels} channels; expected 1 (grey) or 3 (RGB)")
    stride = description.stride
    if min(height, width) < stride or height % stride or width % stride:
        raise InputError(f"images of {height} x {width} for {name}; expected multiples of {stride} px")
    pixels = channels * height * width
    if not 1 <= code <= pixels or code * pixels > _MOST_VALUES:
        raise InputError(
            f"a bottleneck of {code} for images of {pixels} values; expected 1 to {min(pixels, _MOST_VALUES // pixels)}"
        )
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"{error}; networks are built with torch: pip install 'flawline[fit]'") from error
    from flawline.detectors.autoencoder import ImageShape
    from flawline.detectors.convolutional import convolutional_autoencoder
    from flawline.detectors.fully_connected import fully_connected_autoencoder

    constructors = {
        "fully-connected": fully_connected_autoencoder,
        "convolutional": convolutional_autoencoder,
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return constructors[name](ImageShape(channels, height, width), code)
