"""The encoder of an autoencoder as the trunk of a classifier."""

import copy

import torch
from torch import Tensor, nn

from flawline.detectors.autoencoder import Autoencoder
from flawline.detectors.classifier import Classifier
from flawline.runtime.errors import InputError


class EncoderClassifier(Classifier):
    """The encoder of an autoencoder with a classification layer behind it (Gudi et al. 2022, section 3.0.2).

    The deep features are the codes. The encoder is a copy: training the classifier leaves the autoencoder as it is.

    Args:
        autoencoder: Trained for reconstruction, or fresh for comparison.
        classes: How many there are.
        seed: Of the classification layer's weights.

    Raises:
        InputError: Fewer than two classes.
    """

    def __init__(self, autoencoder: Autoencoder, classes: int, *, seed: int) -> None:
        if classes < 2:
            raise InputError(f"a classifier of {classes} classes; expected at least 2")
        super().__init__(
            f"encoder of {autoencoder.architecture}",
            autoencoder.image_shape,
            classes,
            autoencoder.bottleneck,
            layer="encoder",
            mean=(0.0,) * autoencoder.image_shape.channels,
            std=(1.0,) * autoencoder.image_shape.channels,
        )
        self.encoder = copy.deepcopy(autoencoder.encoder)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.classification = nn.Linear(autoencoder.bottleneck, classes)

    @property
    def architecture(self) -> str:
        """Everything that decides on the parameters' names and shapes, as checkpoints record it."""
        return f"classifier of {self.classes} classes on the {self.title}"

    def trunk(self, normalised: Tensor) -> Tensor:
        """Maps images, float32 (B, channels, height, width), which are used as they are, to codes, float32 (B, d)."""
        codes: Tensor = self.encoder(normalised)
        return codes

    def logits(self, features: Tensor) -> Tensor:
        """Maps codes, float32 (B, d), to logits, float32 (B, classes)."""
        found: Tensor = self.classification(features)
        return found
