"""What a training lowers: a loss of a network on images and, where it learns classes, their labels."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from flawline.detectors.autoencoder import Autoencoder
from flawline.detectors.center_loss import CenterLoss
from flawline.detectors.classifier import Classifier
from flawline.detectors.pse_loss import PSELoss
from flawline.detectors.second_head import SecondHead
from flawline.detectors.training_options import TrainingOptions
from flawline.runtime.errors import InputError

Network = Autoencoder | Classifier | SecondHead


class Objective(ABC):
    """Makes a loss of a batch.

    Args:
        terms: The losses. What they learn themselves is in their state dict, and so in checkpoints.

    Attributes:
        classes: Number of classes of the labels; None where there are none.
    """

    classes: int | None = None

    def __init__(self, terms: nn.Module) -> None:
        self.terms = terms

    @abstractmethod
    def loss(self, image: Tensor, labels: Tensor | None) -> Tensor:
        """The mean loss, a scalar.

        Args:
            image: float32 (B, channels, height, width), from 0 to 1.
            labels: int64 (B,), for an objective of classes.
        """

    def after_step(self) -> None:  # noqa: B027
        """Learns from the last batch, once the network has made its step."""


class Reconstruction(Objective):
    """How far the output of an autoencoder is from its input."""

    def __init__(self, network: Autoencoder, terms: nn.Module) -> None:
        super().__init__(terms)
        self._network = network

    def loss(self, image: Tensor, labels: Tensor | None) -> Tensor:
        """The loss of the reconstruction; see `Objective.loss`."""
        del labels
        found: Tensor = self.terms(self._network(image), image)
        return found


class Classification(Objective):
    """Cross-entropy of a classifier's logits.

    On a GPU the network computes in bfloat16 where torch deems it safe; the losses are of float32 everywhere.
    """

    def __init__(self, network: Classifier, terms: nn.Module | None = None) -> None:
        super().__init__(nn.Identity() if terms is None else terms)
        self.classes = network.classes
        self._network = network

    def loss(self, image: Tensor, labels: Tensor | None) -> Tensor:
        """The loss of the logits; see `Objective.loss`."""
        return self._losses(image, labels)[0]

    def _losses(self, image: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        if labels is None:
            raise InputError("images without labels; expected the class of each")
        with torch.autocast(image.device.type, torch.bfloat16, enabled=image.is_cuda):
            features = self._network.deep_features(image)
            logits = self._network.logits(features)
        return functional.cross_entropy(logits.float(), labels), features.float()


class CenteredClassification(Classification):
    """Cross-entropy plus lambda times the center loss, whose centers follow the features after each step.

    Args:
        network: The classifier.
        weight: Lambda.
        rate: Of the centers.
    """

    def __init__(self, network: Classifier, *, weight: float, rate: float) -> None:
        self._center_loss = CenterLoss(network.classes, network.feature_dimension, rate=rate)
        super().__init__(network, self._center_loss)
        self._weight = weight
        self._last: tuple[Tensor, Tensor] | None = None

    def loss(self, image: Tensor, labels: Tensor | None) -> Tensor:
        """The loss of logits and deep features; see `Objective.loss`."""
        cross_entropy, features = self._losses(image, labels)
        if labels is not None:
            self._last = features.detach(), labels
        total: Tensor = cross_entropy + self._weight * self._center_loss(features, labels)
        return total

    def after_step(self) -> None:
        """Moves the centers."""
        if self._last is not None:
            self._center_loss.update(*self._last)


class Normality(Objective):
    """Binary cross-entropy of the second head's probability that an image is normal, which is label 1."""

    classes = 2

    def __init__(self, network: SecondHead) -> None:
        super().__init__(nn.BCEWithLogitsLoss())
        self._network = network

    def loss(self, image: Tensor, labels: Tensor | None) -> Tensor:
        """The loss of the probability; see `Objective.loss`. The images are deep features."""
        if labels is None:
            raise InputError("deep features without labels; expected 1 for normal, else 0")
        found: Tensor = self.terms(self._network.logits(image)[:, 0], labels.float())
        return found


def objective_of(network: Network, options: TrainingOptions) -> Objective | None:
    """The objective that the options name, or None if it is none of such a network."""
    if isinstance(network, Autoencoder) and options.loss in ("mse", "pse"):
        return Reconstruction(network, PSELoss(options.sigma) if options.loss == "pse" else nn.MSELoss())
    if isinstance(network, Classifier) and options.loss == "cross-entropy":
        if not options.center_weight:
            return Classification(network)
        return CenteredClassification(network, weight=options.center_weight, rate=options.center_rate)
    if isinstance(network, SecondHead) and options.loss == "binary-cross-entropy":
        return Normality(network)
    return None
