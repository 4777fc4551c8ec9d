"""What shapes the bundle of a classifier besides the images."""

from dataclasses import dataclass, field
from pathlib import Path

from flawline.calibration import projections
from flawline.calibration.class_statistics import ClassOptions
from flawline.detectors.classifiers import CLASSIFIERS
from flawline.export.options import ImageOptions
from flawline.runtime.errors import InputError
from flawline.runtime.precisions import Precision


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(ImageOptions):
    """What shapes a bundle of a classifier. The seed is that of its weights and of the order of the images too.

    Attributes:
        network: One of `CLASSIFIERS`, or the path of an ONNX file with a classifier that is trained already.
        layer: Of an ONNX file: the tensor with its deep features.
        weights: State dict to begin the training with; fresh weights if None.
        image_size: Height and width of the network's input, px; the network's default if None.
        mean: Of an ONNX file, per channel in units of 0 to 255.
        std: Likewise.
        center_weight: Lambda, the weight of the center loss beside cross-entropy.
        epochs: At most; the network's default if None, as are the next two.
        batch_size: Images per step.
        learning_rate: Of Adam.
        patience: Epochs without a lower loss on the validation images after which training stops.
        validation_share: Share of the images to fit that is kept for validation.
        checkpoint: File that is written after each epoch, and from which training goes on if it exists.
        anomalies: Images of no class, with which a second head is trained; None for none.
        head_epochs: Of the second head's training, at most.
        projection: Kind of projection of the deep features.
        dimension: Features that remain; all if None.
        precision: Of the network: fp32 or one of 8 bits.
        statistics: How the classes are modelled.
    """

    network: str = "lenet"
    layer: str | None = None
    weights: Path | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    center_weight: float = 0.1
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int = 5
    validation_share: float = 0.1
    checkpoint: Path | None = None
    anomalies: Path | None = None
    head_epochs: int = 20
    projection: projections.Kind = "orthogonal"
    dimension: int | None = None
    precision: Precision = "fp32"
    statistics: ClassOptions = field(default_factory=ClassOptions)

    def __post_init__(self) -> None:
        """Refuses what no images could make sense of, and options that nothing is made with."""
        super().__post_init__()
        if self.from_file:
            trained = {"--weights": self.weights, "--checkpoint": self.checkpoint, "--epochs": self.epochs}
            given = [flag for flag, value in trained.items() if value is not None]
            if given:
                raise InputError(f"{given[0]} does not go with {self.network}, which is trained already")
            if self.layer is None:
                raise InputError(f"{self.network} needs --layer: the name of the tensor with its deep features")
        else:
            if self.network not in CLASSIFIERS:
                raise InputError(
                    f"--network is '{self.network}'; expected {', '.join(CLASSIFIERS)} or the path of an .onnx file"
                )
            of_files = {"--layer": self.layer, "--mean": self.mean, "--std": self.std}
            given = [flag for flag, value in of_files.items() if value is not None]
            if given:
                raise InputError(f"{given[0]} is for ONNX files; {self.network} brings its own")
        if self.dimension is not None and self.dimension < 1:
            raise InputError(f"dimension is {self.dimension}; expected 1 or more, up to the deep features (--dim)")

    @property
    def from_file(self) -> bool:
        """Whether the network comes from an ONNX file, trained."""
        return self.network.endswith(".onnx")
