"""A classifier in two stages: the network on classes of images, then the second head on its deep features."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flawline.detectors.autoencoder import ImageShape
from flawline.detectors.classifier import Classifier
from flawline.detectors.second_head import SecondHead
from flawline.detectors.training import TrainingResult, train
from flawline.detectors.training_images import Indices, TrainingImages
from flawline.detectors.training_options import TrainingOptions
from flawline.runtime.errors import InputError
from flawline.runtime.progress import progress

Features = npt.NDArray[np.float32]


def train_classifier(
    network: Classifier,
    images: TrainingImages,
    labels: npt.NDArray[np.int64],
    options: TrainingOptions,
    *,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """The first stage: cross-entropy plus `options.center_weight` times the center loss. See `train`, which does it.

    Args:
        network: Trained in place, and left with the weights of its lowest validation loss, in evaluation mode.
        images: Of the network's shape.
        labels: int64 (N,), the class of each image.
        options: Of loss `cross-entropy`.
        checkpoint: Written after every epoch, with the centers; where it exists, training goes on from it.
    """
    return train(network, images, options, labels=labels, checkpoint=checkpoint)


def deep_features(network: Classifier, images: TrainingImages, *, batch_size: int = 256) -> Features:
    """The deep features of all images, as the network gives them in evaluation mode.

    Args:
        network: Left in evaluation mode, where it is.
        images: Of the network's shape.
        batch_size: Images at once.

    Returns:
        float32 (N, d).

    Raises:
        InputError: A feature is NaN or infinite.
    """
    network.eval()
    found = np.empty((len(images), network.feature_dimension), np.float32)
    with torch.no_grad():
        for start in progress(range(0, len(images), batch_size), label="deep features", unit="batch"):
            batch = images.batch(np.arange(start, min(start + batch_size, len(images))))
            found[start : start + len(batch)] = network.deep_features(batch.to(network.mean.device)).cpu().numpy()
    if not np.isfinite(found).all():
        raise InputError(f"deep features of {network.title} are NaN or infinite; train it with a lower learning rate")
    return found


def train_second_head(
    head: SecondHead,
    normal: Features,
    anomalous: Features,
    options: TrainingOptions,
    *,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """The second stage: binary cross-entropy on deep features of a network that does not change any more.

    Args:
        head: Trained in place, and left with the weights of its lowest validation loss, in evaluation mode.
        normal: float32 (N, d), of images of the classes.
        anomalous: float32 (M, d), of images out of the distribution.
        options: Of loss `binary-cross-entropy`.
        checkpoint: Written after every epoch; where it exists, training goes on from it.

    Raises:
        InputError: One of the two is empty or of another dimension, or as for `train`.
        DivergedError: The loss became NaN or infinite.
    """
    for name, features in (("normal", normal), ("anomalous", anomalous)):
        if features.ndim != 2 or features.shape[1] != head.image_shape.channels or not len(features):
            raise InputError(f"{name} features {features.shape}; expected (1 or more, {head.image_shape.channels})")
    labels = np.repeat(np.array((1, 0)), (len(normal), len(anomalous)))
    images = FeatureImages(np.concatenate((normal, anomalous)))
    return train(head, images, options, labels=labels, checkpoint=checkpoint)


class FeatureImages:
    """Deep features in the form of images of one pixel, as a second head is trained on them.

    Args:
        features: float32 (N, d).
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self.shape = ImageShape(features.shape[1], 1, 1)
        self.fingerprint = hashlib.sha256(np.ascontiguousarray(features).data).hexdigest()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._features)

    def batch(self, indices: Indices) -> Tensor:
        """The features of these numbers, float32 (B, d, 1, 1)."""
        return torch.from_numpy(self._features[indices])[:, :, None, None]
