"""The classifiers by name: the paper each is from, how it is trained, and how to build one. Imports torch only to build one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.runtime.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from flawline.detectors.classifier import Classifier
    from flawline.detectors.weights import WeightsRecord

MOST_CLASSES = 1 << 16


@dataclass(frozen=True)
class ClassifierDescription:
    """What a classifier is.

    Attributes:
        name: Name on the command line, in bundles and in checkpoints.
        paper: Where it is from.
        features: How many deep features it gives.
        side_px: Default height and width of its images.
        stride: Heights and widths are multiples of it, in pixels; None where they are what they are.
        epochs: Default of a training, at most.
        batch_size: Likewise.
        learning_rate: Likewise.
    """

    name: str
    paper: str
    features: int
    side_px: int
    stride: int | None
    epochs: int
    batch_size: int
    learning_rate: float


CLASSIFIERS = {
    description.name: description
    for description in (
        ClassifierDescription(
            name="lenet",
            paper="LeCun et al., Gradient-based learning applied to document recognition, 1998",
            features=84,
            side_px=28,
            stride=None,
            epochs=10,
            batch_size=128,
            learning_rate=1e-3,
        ),
        ClassifierDescription(
            name="efficientnet-b0",
            paper="Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019",
            features=1280,
            side_px=224,
            stride=32,
            epochs=30,
            batch_size=32,
            learning_rate=1e-3,
        ),
    )
}


def require_side(name: str, side_px: int) -> None:
    """Refuses a height and width that does not fit a network, one of `CLASSIFIERS`.

    Raises:
        InputError: It does not.
    """
    description = CLASSIFIERS[name]
    if description.stride is None and side_px != description.side_px:
        raise InputError(f"images of {side_px} px for {name}; expected {description.side_px} px")
    if description.stride is not None and (side_px < description.stride or side_px % description.stride):
        raise InputError(f"images of {side_px} px for {name}; expected a multiple of {description.stride} px")


def build_classifier(
    name: str,
    classes: int,
    *,
    channels: int = 1,
    side_px: int | None = None,
    seed: int = 0,
    weights: Path | None = None,
) -> tuple[Classifier, WeightsRecord]:
    """Builds a classifier in training mode, with fresh weights or with those of a file.

    Args:
        name: One of `CLASSIFIERS`.
        classes: How many there are, 2 to `MOST_CLASSES`.
        channels: 1 for grey, 3 for RGB.
        side_px: Height and width of the images; the network's default if None.
        seed: Of fresh weights, which are torch's default initialisation: the same for the same seed and version of torch.
            Torch's global generator is left as it was.
        weights: A state dict in a `.pth`, `.safetensors` or `.npz` file, with the names that are published for the network.
            The last layer stays fresh if the file's is of another number of classes.

    Returns:
        The network, and where its weights came from.

    Raises:
        InputError: An unknown name, a size that does not fit the network, no number of classes or channels that can be, or
            weights that are another network's.
        MissingExtraError: torch is not installed.
    """
    if name not in CLASSIFIERS:
        raise InputError(f"classifier {name}: expected one of {', '.join(CLASSIFIERS)}")
    if not 2 <= classes <= MOST_CLASSES:
        raise InputError(f"a classifier of {classes} classes; expected 2 to {MOST_CLASSES}")
    if channels not in (1, 3):
        raise InputError(f"images of {channels} channels; expected 1 (grey) or 3 (RGB)")
    side = CLASSIFIERS[name].side_px if side_px is None else side_px
    require_side(name, side)
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"{error}; networks are built with torch: pip install 'flawline[fit]'") from error
    from flawline.detectors.classifier_weights import fresh_record, load_classifier_weights
    from flawline.detectors.efficientnet_b0 import EfficientNetB0
    from flawline.detectors.lenet import LeNet

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        if name == "lenet":
            network: Classifier = LeNet(classes, channels=channels)
        else:
            network = EfficientNetB0(classes, channels=channels, side_px=side)
    return network, fresh_record(network) if weights is None else load_classifier_weights(network, weights)
