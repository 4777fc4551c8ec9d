"""What shapes the bundle of an autoencoder besides the images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flawline.detectors.autoencoders import AUTOENCODERS
from flawline.detectors.training_options import TrainingOptions
from flawline.export.reconstruction_options import ReconstructionOptions
from flawline.runtime.bundle.manifest import RECONSTRUCTION_MAP_KINDS, ReconstructionMapKind
from flawline.runtime.errors import InputError

_PAPER_SIGMA_PX = 0.5  # Gudi and others, 2022, section 4.2


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(ReconstructionOptions):
    """What shapes a bundle of an autoencoder. The seed is that of its weights and of the order of the images too.

    Attributes:
        network: One of `AUTOENCODERS`.
        bottleneck: Values in a code; the network's default if None.
        loss: Of the training: mean squared error, or Proximally Sensitive Error of `sigma`, which is the paper's if None.
        maps: Kinds of map that the bundle offers; the first is made unless another is asked for. `pse` is of `sigma` too.
            `normalised` is of that map alone: as a loss, the taps are scaled to sum 1 in any case.
        epochs: At most.
        batch_size: Images per step.
        learning_rate: Of Adam.
        patience: Epochs without a lower loss on the validation images after which training stops.
        validation_share: Share of the images to fit that is kept for validation. The images held out for the threshold are
            none of these: training never sees them.
        checkpoint: File that is written after each epoch, and from which training goes on if it exists.
    """

    network: str = "convolutional"
    bottleneck: int | None = None
    loss: Literal["mse", "pse"] = "mse"
    maps: tuple[ReconstructionMapKind, ...] = ("error",)
    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3
    patience: int = 10
    validation_share: float = 0.1
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        """Refuses what no images could make sense of, and a sigma or taps that nothing is made with."""
        super().__post_init__()
        if self.network not in AUTOENCODERS:
            raise InputError(f"--network is '{self.network}'; expected one of {', '.join(AUTOENCODERS)}")
        stride = AUTOENCODERS[self.network].stride
        if self.image_size % stride:
            raise InputError(
                f"--image-size is {self.image_size} px; expected a multiple of {stride}, the stride of the {self.network} "
                "network"
            )
        unknown = next((kind for kind in self.maps if kind not in RECONSTRUCTION_MAP_KINDS), None)
        if unknown is not None:
            raise InputError(f"--maps names '{unknown}'; expected some of {', '.join(RECONSTRUCTION_MAP_KINDS)}")
        if not self.maps or len(set(self.maps)) != len(self.maps):
            raise InputError(f"--maps is '{','.join(self.maps)}'; expected at least one kind, and none twice")
        if self.sigma is not None and "pse" not in (self.loss, *self.maps):
            raise InputError("--sigma is that of --loss pse and of --maps pse; expected one of them as well")
        if not self.normalised and "pse" not in self.maps:
            raise InputError("--unscaled is that of --maps pse, not of a loss; expected that map as well")
        # Refuses what is out of its range.
        _ = self.training

    @property
    def sigma_px(self) -> float:
        """The sigma in use, px."""
        return _PAPER_SIGMA_PX if self.sigma is None else self.sigma

    @property
    def training(self) -> TrainingOptions:
        """How to train."""
        return TrainingOptions(
            loss=self.loss,
            sigma=self.sigma_px,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            validation_share=self.validation_share,
            seed=self.seed,
        )
