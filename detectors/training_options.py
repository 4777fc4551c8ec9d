"""How an autoencoder, a classifier or its second head is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from flawline.runtime.errors import InputError

Loss = Literal["mse", "pse", "cross-entropy", "binary-cross-entropy"]
LOSSES: tuple[Loss, ...] = ("mse", "pse", "cross-entropy", "binary-cross-entropy")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        loss: `mse` or `pse` of the reconstruction, `cross-entropy` of a classifier's logits, or `binary-cross-entropy` of
            its second head.
        sigma: Standard deviation of the Gaussian of `pse`, px; the paper's 0.5 by default.
        center_weight: Lambda, how many times the center loss is added to `cross-entropy`; 0 for none of it.
        center_rate: Alpha, how fast the centers follow the deep features, above 0 up to 1; the paper's 0.5 by default.
        epochs: At most.
        batch_size: Images per step; the last of an epoch may be smaller, or larger by one.
        learning_rate: Of Adam.
        patience: Epochs without a lower validation loss after which training stops.
        validation_share: Share of the images that is held out, drawn at random.
        seed: Of the split and the order of the images; that of the weights is the network's own.
        device: Where torch computes.
    """

    loss: Loss = "mse"
    sigma: float = 0.5
    center_weight: float = 0.0
    center_rate: float = 0.5
    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-3
    patience: int = 10
    validation_share: float = 0.1
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            InputError: A value out of its range.
        """
        ranges = (
            ("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}"),
            ("sigma", 0 <= self.sigma < math.inf, "0 or more"),
            ("center_weight", 0 <= self.center_weight < math.inf, "0 or more"),
            ("center_rate", 0 < self.center_rate <= 1, "above 0, up to 1"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 2, "at least 2"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("patience", self.patience >= 1, "at least 1"),
            ("validation_share", 0 < self.validation_share < 1, "between 0 and 1"),
            ("seed", 0 <= self.seed < 1 << 63, "0 or more, in 63 bits"),
        )
        for name, fits, expected in ranges:
            if not fits:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)}: expected {expected}")
        if self.center_weight and self.loss != "cross-entropy":
            raise InputError(f"center weight {self.center_weight} with loss {self.loss}: expected cross-entropy")

    @property
    def loss_title(self) -> str:
        """The loss with its parameters."""
        if self.loss == "pse":
            return f"pse, sigma {self.sigma} px"
        if self.center_weight:
            return f"{self.loss} + {self.center_weight} x center loss, rate {self.center_rate}"
        return self.loss
