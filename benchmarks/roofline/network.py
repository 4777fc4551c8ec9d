"""Operations and bytes of the networks, counted on the networks themselves, without weights."""

import math
from functools import cache
from typing import TYPE_CHECKING

from flawline.benchmarks.roofline.work import SCALES, Work
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "pip install 'flawline[fit]'")

NETWORKS = ("resnet18", "wide-resnet50-2")
SIDE_PX = 224
_BYTES = {"fp16": 2, "int8": 1}


def network(name: str, dimension: int, precision: str, batch: int) -> Work:
    """A colour frame of 224 px to projected feature maps.

    Weights are read once for the whole batch, the frame as uint8, and the maps are written as float32. What lies
    between is taken to stay on the chip, which is more than can be had: the floor is a floor.

    Args:
        name: One of `NETWORKS`.
        dimension: d, at most the channels of the network's layers.
        precision: "fp16" or "int8", of weights and arithmetic.
        batch: Frames.

    Raises:
        InputError: The network has fewer channels.
        MissingExtraError: torch is not installed.
    """
    weights, multiplications, channels = _count(name)
    if dimension > sum(channels):
        raise InputError(f"dimension {dimension}: {name} has {sum(channels)} channels, expected at most as many")
    positions = [math.prod(size) for size in SCALES]
    projection = sum(depth * pixels for depth, pixels in zip(channels, positions, strict=True)) * dimension
    once = (weights + sum(channels) * dimension) * _BYTES[precision]
    each = 3 * SIDE_PX**2 + 4 * dimension * sum(positions)
    return Work(once + batch * each, 2 * batch * (multiplications + projection), precision)


def channels(name: str) -> int:
    """Channels of a network's layers together."""
    return sum(_count(name)[2])


@cache
def _count(name: str) -> tuple[int, int, tuple[int, ...]]:
    """Numbers that are stored, multiply-adds per frame, and channels of the layers."""
    from flawline.detectors import NETWORKS as described
    from flawline.detectors.resnet import resnet18, wide_resnet50_2

    constructors = {"resnet18": resnet18, "wide-resnet50-2": wide_resnet50_2}
    # The meta device knows shapes and nothing else.
    with torch.device("meta"):
        built = constructors[name](described[name].layers)
        image = torch.empty(1, 3, SIDE_PX, SIDE_PX)
    multiplications = 0

    def count(module: "torch.nn.Module", _: object, output: "torch.Tensor") -> None:
        nonlocal multiplications
        if isinstance(module, torch.nn.Conv2d):
            multiplications += output.numel() * module.weight[0].numel()

    for module in built.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        layers = built(image)
    stored = sum(parameter.numel() for parameter in built.parameters())
    return stored, multiplications, tuple(layer.shape[1] for layer in layers)
