"""A classifier once more, in float64: what its gate holds it to."""

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from flawline.detectors.classifier import Classifier
from flawline.detectors.second_head import SecondHead
from flawline.export.classifier_parity import Doubles, Frame, Network
from flawline.runtime.classifier_scorer import MOST_LOG_ODDS
from flawline.runtime.extractor import FeatureExtractor

DeepFeatures = Callable[[Frame], Doubles]
"""Images, uint8 (N, height, width) or (N, height, width, 3) at the network's size, to deep features, float64 (N, D)."""


def in_torch(classifier: Classifier) -> DeepFeatures:
    """The deep features of a classifier of torch, which is left as it is, in float64."""
    trunk = copy.deepcopy(classifier).double().eval()

    def deep_features(images: Frame) -> Doubles:
        with torch.no_grad():
            return np.asarray(trunk.deep_features(_unit(images)).numpy(), np.float64)

    return deep_features


def probabilities_in_torch(classifier: Classifier, images: Frame) -> Doubles:
    """Probabilities of the classes, float64 (N, K), by a classifier of torch, which is left as it is, in float64."""
    with torch.no_grad():
        return np.asarray(copy.deepcopy(classifier).double().eval()(_unit(images)).softmax(dim=1).numpy(), np.float64)


def _unit(images: Frame) -> torch.Tensor:
    """Images as torch takes them: float64 (N, channels, height, width) from 0 to 1."""
    planes = images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2)
    return torch.from_numpy(planes.astype(np.float64) / 255)


def in_engine(extractor: FeatureExtractor) -> DeepFeatures:
    """Those of a graph that was a file already: there is no other implementation, and what is proven is what comes behind."""

    def deep_features(images: Frame) -> Doubles:
        found = []
        for image in images:
            extractor.load(0, image)
            found.append(extractor.run()[0][0, :, 0, 0].astype(np.float64))
        return np.stack(found)

    return deep_features


def reference_of(
    name: str, deep_features: DeepFeatures, projection: npt.NDArray[np.float32] | None, head: SecondHead | None
) -> Network:
    """Adds projection and second head, in float64.

    Args:
        name: What gives the deep features.
        deep_features: Not projected.
        projection: float32 (d, D); None for none.
        head: Of the D deep features; left as it is.
    """
    double_head = None if head is None else copy.deepcopy(head).double().eval()

    def features(images: Frame) -> Doubles:
        found = deep_features(images)
        return found if projection is None else np.asarray(found @ projection.T.astype(np.float64), np.float64)

    def anomalous(images: Frame) -> Doubles:
        if double_head is None:
            raise ValueError("the probability of a second head where there is none; expected one")
        with torch.no_grad():
            logits = double_head.logits(torch.from_numpy(deep_features(images)))[:, 0]
        return np.asarray((-logits).clamp(-MOST_LOG_ODDS, MOST_LOG_ODDS).sigmoid().numpy(), np.float64)

    return Network(name, features, None if head is None else anomalous)
