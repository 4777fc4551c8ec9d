"""How much memory a training takes, known before anything of that size is allocated."""

import copy

import torch
from torch import Tensor, nn

from flawline.detectors.autoencoder import ImageShape
from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.classifier import Classifier

# Weights, gradients, two moments of Adam, the best weights so far, and all but the gradients once more in a checkpoint, whose
# buffer grows by copying: 11 were seen.
_COPIES = 12


def training_bytes(name: str, image_shape: ImageShape, *, bottleneck: int | None, batch_size: int) -> int:
    """Memory that the training of an autoencoder takes at its fullest, without the images.

    The network is built without memory of its own, and a batch sent through it that is none either, to find what each
    layer gives.

    Args:
        name: One of `AUTOENCODERS`.
        image_shape: Of the images.
        bottleneck: Values in a code; the network's default if None.
        batch_size: Images per step.

    Returns:
        Bytes: of the weights in all their copies, and of what every layer gives for a batch, with its gradient.

    Raises:
        InputError: As for `build_autoencoder`.
    """
    channels, height, width = image_shape
    with torch.device("meta"):
        network = build_autoencoder(name, height, width, channels=channels, bottleneck=bottleneck)
    return _bytes(network, image_shape, batch_size)


def classifier_training_bytes(network: Classifier, batch_size: int) -> int:
    """Memory that the training of a classifier takes at its fullest, without the images; see `training_bytes`.

    Args:
        network: Left as it is.
        batch_size: Images per step.
    """
    return _bytes(copy.deepcopy(network).to("meta"), network.image_shape, batch_size)


def _bytes(network: nn.Module, image_shape: ImageShape, batch_size: int) -> int:
    batch = torch.empty(batch_size, *image_shape, device="meta")
    given = batch.numel()

    def count(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal given
        given += output.numel()

    for module in network.modules():
        if not any(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(batch)
    weights = sum(value.numel() for value in network.parameters())
    return 4 * (_COPIES * weights + 2 * given)
