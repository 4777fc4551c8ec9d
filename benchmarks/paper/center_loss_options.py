"""What is asked of `bench paper center-loss`: how much is trained, and with which weights of the center loss."""

import math
from dataclasses import dataclass, field

from flawline.detectors.training_options import TrainingOptions
from flawline.export.options import default_threads
from flawline.runtime.errors import InputError
from flawline.runtime.kernels import MOST_THREADS

BATCH_SIZES = {"lenet": 64, "efficientnet-b0": 32}
"""Of training, by network; the paper does not say."""

_VALIDATION_SHARE = 0.1
_HEAD_BATCH_SIZE = 256


@dataclass(frozen=True, kw_only=True)
class CenterLossStudy:
    """What is asked.

    Attributes:
        lambdas: Weights of the center loss, 0 for none. The paper's list is lost in the text at hand, which names 0, 0.1 and 1.
        epochs: Of the classifier, at most; it has the weights of the lowest validation loss.
        head_epochs: Of the second head, likewise.
        train_images: Normal images to train on, and anomalous ones for the second head, drawn at random; None for all.
        seed: The first one, of weights, drawing, split and order.
        seeds: How many trainings of each network, each of the next seed.
        threads: Threads that compute.
    """

    lambdas: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0)
    epochs: int = 5
    head_epochs: int = 3
    train_images: int | None = None
    seed: int = 0
    seeds: int = 1
    threads: int = field(default_factory=default_threads)

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            InputError: A value out of its range.
        """
        if not self.lambdas or len(set(self.lambdas)) != len(self.lambdas):
            raise InputError(f"--lambdas {self.lambdas}; expected at least one, each once")
        unfit = next((one for one in self.lambdas if not 0 <= one < math.inf), None)
        if unfit is not None:
            raise InputError(f"--lambdas: {unfit} is among them; expected numbers of 0 or more")
        if self.train_images is not None and self.train_images < 1:
            raise InputError(f"--train-images is {self.train_images}; expected 1 or more")
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}; expected 1 or more")
        if not 1 <= self.threads <= MOST_THREADS:
            raise InputError(f"--threads is {self.threads}; expected 1 to {MOST_THREADS}")
        # Refuses what is out of its range; the last seed is the largest.
        for seed in (self.seed, self.seed + self.seeds - 1):
            _ = self.training("lenet", 0.0, seed), self.head_training(seed)

    def training(self, network: str, center_weight: float, seed: int) -> TrainingOptions:
        """How a classifier is trained: a tenth of the images is for validation."""
        return TrainingOptions(
            loss="cross-entropy",
            center_weight=center_weight,
            epochs=self.epochs,
            batch_size=BATCH_SIZES[network],
            validation_share=_VALIDATION_SHARE,
            seed=seed,
        )

    def head_training(self, seed: int) -> TrainingOptions:
        """How a second head is trained, likewise."""
        return TrainingOptions(
            loss="binary-cross-entropy",
            epochs=self.head_epochs,
            batch_size=_HEAD_BATCH_SIZE,
            validation_share=_VALIDATION_SHARE,
            seed=seed,
        )


FULL = CenterLossStudy(epochs=40, head_epochs=20, train_images=None, seeds=3)
"""All images, until the validation loss no longer falls. For how long the paper trains it does not say."""
