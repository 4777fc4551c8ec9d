"""What is asked of `bench paper saliency`: how much is trained, and what is compared."""

from dataclasses import dataclass, field

from flawline.detectors.training_options import TrainingOptions
from flawline.export.options import default_threads
from flawline.runtime.errors import InputError
from flawline.runtime.kernels import MOST_THREADS

GROUPS = {"normal": range(5), "novel": range(5, 10)}
"""Digits of each group; the first is trained on."""

COUNTS = (5, 10)
"""K: how many of the largest pixels of two maps are compared."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What is asked.

    Attributes:
        epochs: Of training, at most.
        train_images: Normal digits to train on, drawn at random; None for all.
        seed: The first one, of weights, drawing, split and order.
        seeds: How many trainings, each of the next seed.
        threads: Threads that compute.
        pictured: Digits of each group in a picture.
    """

    epochs: int = 4
    train_images: int | None = None
    seed: int = 0
    seeds: int = 1
    threads: int = field(default_factory=default_threads)
    pictured: int = 3

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            InputError: A value out of its range.
        """
        if self.train_images is not None and self.train_images < 1:
            raise InputError(f"--train-images is {self.train_images}; expected 1 or more")
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}; expected 1 or more")
        if not 1 <= self.threads <= MOST_THREADS:
            raise InputError(f"--threads is {self.threads}; expected 1 to {MOST_THREADS}")
        # Refuses what is out of its range; the last seed is the largest.
        _ = self.training(self.seed), self.training(self.seed + self.seeds - 1)

    def training(self, seed: int) -> TrainingOptions:
        """How to train with a seed: a tenth of the images is for validation, as in the paper."""
        return TrainingOptions(epochs=self.epochs, batch_size=64, validation_share=0.1, seed=seed)


FULL = StudyOptions(epochs=100, seeds=3)
"""The paper trains on all normal digits. For how long it does not say: here until the validation loss no longer falls."""
