"""What shapes the bundle of a classifier besides the images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flawline.calibration import projections
from flawline.calibration.class_statistics import ClassOptions
from flawline.detectors.classifiers import CLASSIFIERS, require_side
from flawline.detectors.training_options import TrainingOptions
from flawline.export.options import ImageOptions
from flawline.runtime.errors import InputError
from flawline.runtime.precisions import Precision

CENTER_WEIGHT = 0.1
PATIENCE = 5
HEAD_EPOCHS = 20
FILE_SIDE_PX = 224
"""Default height and width of the images of an ONNX file."""


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(ImageOptions):
    """What shapes a bundle of a classifier. The seed is that of its weights and of the order of the images too.

    Attributes:
        network: One of `CLASSIFIERS`, or the path of an ONNX file with a classifier that is trained already.
        layer: Of an ONNX file: the tensor with its deep features.
        weights: State dict to begin the training with; fresh weights if None or `random`.
        image_size: Height and width of the network's input, px; the network's default if None.
        mean: Of an ONNX file, per channel in units of 0 to 255.
        std: Likewise.
        center_weight: Lambda, the weight of the center loss beside cross-entropy; `CENTER_WEIGHT` if None.
        epochs: At most; the network's default if None, as are the next two.
        batch_size: Images per step.
        learning_rate: Of Adam.
        patience: Epochs without a lower loss on the validation images after which training stops; `PATIENCE` if None.
        validation_share: Share of the images to fit that is kept for validation.
        checkpoint: File that is written after each epoch, and from which training goes on if it exists.
        anomalies: Images of no class, with which a second head is trained; None for none.
        head_epochs: Of the second head's training, at most; `HEAD_EPOCHS` if None.
        projection: Kind of projection of the deep features; `orthogonal` if None.
        dimension: Features that remain; all if None.
        precision: Of the network: fp32 or one of 8 bits.
        statistics: How the classes are modelled.
    """

    network: str = "lenet"
    layer: str | None = None
    weights: str | Path | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    center_weight: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    validation_share: float = 0.1
    checkpoint: Path | None = None
    anomalies: Path | None = None
    head_epochs: int | None = None
    projection: projections.Kind | None = None
    dimension: int | None = None
    precision: Precision = "fp32"
    statistics: ClassOptions = field(default_factory=ClassOptions)

    def __post_init__(self) -> None:
        """Refuses what no images could make sense of, and options that nothing is made with."""
        super().__post_init__()
        if self.from_file:
            self._check_of_file()
        else:
            self._check_of_training()
        if self.head_epochs is not None and self.anomalies is None:
            raise InputError("--head-epochs is of a second head; expected --anomalies as well")
        if self.dimension is None:
            if self.projection not in (None, "none"):
                raise InputError(f"--projection {self.projection} without --dim: expected how many features remain")
        elif self.dimension < 1:
            raise InputError(f"--dim is {self.dimension}; expected 1 or more, up to the deep features")
        # Refuses what is out of its range.
        try:
            _ = self.head_training
        except InputError as error:
            raise InputError(f"second head: {error}") from error

    @property
    def from_file(self) -> bool:
        """Whether the network comes from an ONNX file, trained."""
        return self.network.endswith(".onnx")

    @property
    def weights_file(self) -> Path | None:
        """The file that training begins with; None for fresh weights."""
        return None if self.weights is None or self.weights == "random" else Path(self.weights)

    @property
    def side_px(self) -> int:
        """Height and width of the network's input, px."""
        if self.image_size is not None:
            return self.image_size
        return FILE_SIDE_PX if self.from_file else CLASSIFIERS[self.network].side_px

    @property
    def training(self) -> TrainingOptions:
        """How the network is trained, where it comes from no file."""
        description = CLASSIFIERS[self.network]
        return TrainingOptions(
            loss="cross-entropy",
            center_weight=CENTER_WEIGHT if self.center_weight is None else self.center_weight,
            epochs=description.epochs if self.epochs is None else self.epochs,
            batch_size=description.batch_size if self.batch_size is None else self.batch_size,
            learning_rate=description.learning_rate if self.learning_rate is None else self.learning_rate,
            patience=PATIENCE if self.patience is None else self.patience,
            validation_share=self.validation_share,
            seed=self.seed,
        )

    @property
    def head_training(self) -> TrainingOptions:
        """How the second head is trained."""
        return TrainingOptions(
            loss="binary-cross-entropy",
            epochs=HEAD_EPOCHS if self.head_epochs is None else self.head_epochs,
            patience=PATIENCE if self.patience is None else self.patience,
            validation_share=self.validation_share,
            seed=self.seed,
        )

    def require_dimension(self, features: int) -> None:
        """Refuses a number of features that cannot remain of as many deep features as the network gives.

        Raises:
            InputError: Likewise.
        """
        if self.dimension is None:
            return
        if self.dimension > features:
            raise InputError(
                f"--dim is {self.dimension}; {self.network} gives {features} deep features: expected no more"
            )
        if self.projection == "none" and self.dimension != features:
            raise InputError(
                f"--projection none keeps all {features} deep features of {self.network}; leave out --dim "
                f"{self.dimension}, or choose another projection"
            )

    def _check_of_file(self) -> None:
        trained = {
            "--weights": self.weights,
            "--checkpoint": self.checkpoint,
            "--epochs": self.epochs,
            "--batch-size": self.batch_size,
            "--learning-rate": self.learning_rate,
            "--center-weight": self.center_weight,
            # A second head has it too.
            "--patience": self.patience if self.anomalies is None else None,
        }
        _refuse(trained, f"does not go with {self.network}, which is trained already")
        if self.layer is None:
            raise InputError(f"{self.network} needs --layer: the name of the tensor with its deep features")
        if self.side_px < 1:
            raise InputError(f"--image-size is {self.side_px} px; expected the height and width of {self.network}")

    def _check_of_training(self) -> None:
        if self.network not in CLASSIFIERS:
            raise InputError(
                f"--network is '{self.network}'; expected {', '.join(CLASSIFIERS)} or the path of an .onnx file"
            )
        of_files = {"--layer": self.layer, "--mean": self.mean, "--std": self.std}
        _refuse(of_files, f"is for ONNX files; {self.network} brings its own")
        require_side(self.network, self.side_px)
        self.require_dimension(CLASSIFIERS[self.network].features)
        # Refuses what is out of its range.
        _ = self.training


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuses the first of some options that was given."""
    for flag, value in options.items():
        if value is not None:
            raise InputError(f"{flag} {why}")
