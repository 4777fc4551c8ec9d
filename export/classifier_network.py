"""Where a classifier's network comes from: trained on the labelled images, or read from an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flawline.calibration.labelled_images import LabelledImages
from flawline.calibration.memory import class_bytes
from flawline.calibration.statistics import FACTOR_DTYPES
from flawline.detectors import NETWORKS
from flawline.detectors.classifier_training import train_classifier
from flawline.detectors.classifiers import CLASSIFIERS, build_classifier
from flawline.detectors.training_images import ReadImages, TrainingImages
from flawline.detectors.training_memory import classifier_training_bytes
from flawline.export.classifier_graph import export_classifier, load_classifier
from flawline.export.classifier_options import ClassifierOptions
from flawline.export.feature_graph import FeatureGraph
from flawline.export.fitting import Say
from flawline.runtime import memory
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.errors import InputError

if TYPE_CHECKING:
    from flawline.detectors.classifier import Classifier

# Images that take up to this share of the memory that training leaves are read once, and not anew in every epoch.
_SHARE_FOR_IMAGES = 0.25


class ClassifierNetwork(NamedTuple):
    """A network, before preprocessing, projection and second head are added.

    Attributes:
        graph: Cut at its deep features and its logits.
        name: For the manifest, as are weights and layer.
        weights: Where they come from.
        layer: Name of the layer that gives the deep features.
        mean: Per channel of the network, in units of 0 to 255.
        std: Likewise.
        module: The network in torch; None for one from an ONNX file, as are the next four.
        loss: What it was trained with.
        center_weight: Lambda.
        epochs: How many were trained.
        best_epoch: The one whose weights were kept, from 1 on.
    """

    graph: FeatureGraph
    name: str
    weights: facts.Weights
    layer: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    module: "Classifier | None" = None
    loss: str | None = None
    center_weight: float | None = None
    epochs: int | None = None
    best_epoch: int | None = None


def open_network(images: LabelledImages, options: ClassifierOptions, say: Say) -> ClassifierNetwork:
    """Trains the network that the options name, or reads it.

    Args:
        images: To train on, all those for validation included; of the network's size.
        options: Of the fit.
        say: Takes each line that tells what is being done.

    Raises:
        InputError: The network does not go with the images, or the checkpoint is of another training.
        DivergedError: The loss became NaN or infinite.
    """
    if options.from_file:
        return _from_file(images, options)
    return _trained(images, options, say)


def _from_file(images: LabelledImages, options: ClassifierOptions) -> ClassifierNetwork:
    assert options.layer is not None, "the options refuse a file without its layer"
    path, size_px = Path(options.network), options.side_px
    graph = load_classifier(path, options.layer, size_px, size_px)
    if graph.channels[1] != len(images.classes):
        raise InputError(
            f"network {path.name} gives logits of {graph.channels[1]} classes, the images are of {len(images.classes)}; "
            "expected equal numbers, the folders in the order of the logits"
        )
    options.require_dimension(graph.channels[0])
    _require_memory(len(images.classes), graph.channels[0], options)
    imagenet = NETWORKS["resnet18"]
    return ClassifierNetwork(
        graph,
        name=path.stem,
        weights=facts.Weights(origin=path.name, sha256=graph.sha256, random=False),
        layer=options.layer,
        mean=_per_channel(options.mean, imagenet.mean, graph.image_channels),
        std=_per_channel(options.std, imagenet.std, graph.image_channels),
    )


def _trained(images: LabelledImages, options: ClassifierOptions, say: Say) -> ClassifierNetwork:
    _require_memory(len(images.classes), CLASSIFIERS[options.network].features, options)
    network, record = build_classifier(
        options.network,
        len(images.classes),
        channels=images.channels,
        side_px=options.side_px,
        seed=options.seed,
        weights=options.weights_file,
    )
    training = options.training
    begun = "fresh weights" if record.random else record.origin
    say(f"training: {network.architecture}, from {begun}; loss {training.loss_title}; at most {training.epochs} epochs")
    result = train_classifier(
        network, _pixels(images, network, training.batch_size), images.labels, training, checkpoint=options.checkpoint
    )
    say(
        f"trained {len(result.epochs)} epochs{', until patience ran out' * result.stopped_early}; the best is "
        f"{result.best_epoch}, validation loss {result.epochs[result.best_epoch - 1][1]:.4g}"
    )
    graph = export_classifier(network)
    return ClassifierNetwork(
        graph,
        name=options.network,
        weights=facts.Weights(
            origin="trained on the images" if record.random else f"trained on the images from {record.origin}",
            sha256=graph.sha256,
            random=False,
        ),
        layer=network.layer,
        mean=tuple((network.mean.double().flatten() * 255).tolist()),
        std=tuple((network.std.double().flatten() * 255).tolist()),
        module=network,
        loss=training.loss_title,
        center_weight=training.center_weight,
        epochs=len(result.epochs),
        best_epoch=result.best_epoch,
    )


def _require_memory(classes: int, features: int, options: ClassifierOptions) -> None:
    """Refuses classes whose Gaussians would not fit, before anything is trained."""
    dimension = features if options.dimension is None else options.dimension
    # Those of the network in floats are still there when those in 8 bits are fitted.
    times = 1 if options.precision == "fp32" else 2
    memory.require(
        times * class_bytes(classes, dimension, FACTOR_DTYPES[options.statistics.factors]),
        f"modelling {classes} classes by {dimension} features",
        "lower --dim, or take --factors fp16",
    )


def _pixels(images: LabelledImages, network: "Classifier", batch_size: int) -> TrainingImages:
    """The images in memory where they take little of what training leaves, and else read for every batch."""
    needed_bytes = classifier_training_bytes(network, batch_size)
    shape = network.image_shape
    memory.require(
        needed_bytes,
        f"training {network.title} on {batch_size} images of {shape.height} x {shape.width} px at once",
        "lower --batch-size or --image-size",
    )
    available = memory.available_bytes()
    read = ReadImages.of(images)
    if available is None or len(images) * shape.values > _SHARE_FOR_IMAGES * (available - needed_bytes):
        return read
    return read.in_memory()


def _per_channel(given: tuple[float, ...] | None, imagenet: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if given is None:
        return imagenet if channels == len(imagenet) else (float(np.mean(imagenet)),) * channels
    return given if len(given) == channels else given * channels
