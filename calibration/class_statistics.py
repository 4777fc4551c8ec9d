"""What the deep features of each class are like: a Gaussian, and the distance beyond which an image is none of the class.

Source: the semi-supervised test of "Anomaly Detection in Image Datasets Using Convolutional Neural Networks, Center Loss,
and Mahalanobis Distance" (2021), section II: mean and covariance per class, and as threshold the 97.5th percentile of the
distances of the class's own images. Center loss draws a class together and ReLU leaves features at 0, so that covariances
are small in some directions and nothing in others: what is added to them is relative to the mean feature variance. Beyond the
paper, every covariance is shrunk by the share that an estimator finds, which is small for a class of many images. Without it
a class of hardly more images than features has a covariance in which some directions are all but nothing by chance, and the
images that it was fitted to are far nearer to it than any other image of the class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flawline.calibration.shrinkage import ESTIMATORS, Estimator, estimated_share, shrink
from flawline.calibration.statistics import FACTOR_DTYPES, FactorType
from flawline.calibration.whitening import empty_factors, packed_factors, regularisation_of
from flawline.runtime.errors import InputError
from flawline.runtime.kernels import Gaussians, mahalanobis

PERCENTILE = 97.5
FEW_IMAGES = 2
"""Per feature: the threshold of a class of fewer is too small."""


@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    """How the classes are modelled.

    Attributes:
        percentile: Of a class's own distances that is its threshold, between 0 and 100.
        epsilon: Regularisation of every covariance.
        epsilon_relative: Whether epsilon is relative to the mean feature variance, over all classes and features.
        shrinkage: What finds how far the covariance of each class is shrunk.
        factors: Type of the stored factors. Those of a few classes are small, and directions in which ReLU leaves nothing
            make float16 coarse; for a thousand classes it is half of much.
    """

    percentile: float = PERCENTILE
    epsilon: float = 0.01
    epsilon_relative: bool = True
    shrinkage: Estimator = "ledoit-wolf"
    factors: FactorType = "fp32"

    def __post_init__(self) -> None:
        """Refuses what no features could make sense of."""
        if not 0 < self.percentile < 100:
            raise InputError(f"percentile is {self.percentile}; expected a number between 0 and 100, such as 97.5")
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(f"epsilon is {self.epsilon}; expected a positive number such as 0.01")
        if self.shrinkage not in ESTIMATORS:
            raise InputError(f"shrinkage '{self.shrinkage}'; expected {' or '.join(ESTIMATORS)}")


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """The classes as their images show them.

    Attributes:
        gaussians: Of K outputs: output c is the distance to class c.
        thresholds: float32 (K,), positive: farther than that is beyond the class.
        small: How many classes have fewer images than `FEW_IMAGES` per feature. An image that was fitted is nearer to such a
            class than its other images are, so that the threshold, which is of fitted images, is too small.
        added: What was added to the diagonal of each.
    """

    gaussians: Gaussians
    thresholds: npt.NDArray[np.float32]
    small: int
    added: float


def fit_classes(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    options: ClassOptions | None = None,
    *,
    threads: int = 1,
) -> ClassStatistics:
    """Fits a Gaussian and a threshold to each class. Memory holds one covariance at a time beside the packed factors.

    Args:
        features: float32 (N, d), of the images that the classes are learnt from.
        labels: int64 (N,), the class of each, 0 to K - 1.
        classes: K names, for messages.
        options: How they are modelled.
        threads: Threads of the kernel.

    Raises:
        InputError: There is one class only, a class has one image or none, a label is out of range, features are not
            finite, do not vary, or are too large or small for float32, or a covariance is singular.
    """
    options = options or ClassOptions()
    count, dimension = len(classes), features.shape[1]
    members = [features[labels == index] for index in range(count)]
    _check(features, labels, classes, [len(own) for own in members])
    variance = float(np.mean([own.var(axis=0, ddof=1, dtype=np.float64).mean() for own in members]))
    added = regularisation_of(variance, options.epsilon, relative=options.epsilon_relative)
    packed = empty_factors(count, dimension, None, FACTOR_DTYPES[options.factors])
    means = np.empty((count, 1, dimension), np.float32)
    for index, own in enumerate(members):
        mean, covariance = class_moments(own, options)
        one = packed_factors(covariance[None], added, packed.factors.dtype)
        means[index, 0], packed.factors[index], packed.scales[index] = mean, one.factors[0], one.scales[0]
        if packed.row_scales is not None and one.row_scales is not None:
            packed.row_scales[index] = one.row_scales[0]
    gaussians = Gaussians(
        means=means,
        factors=packed.factors[:, None],
        scales=packed.scales[:, None],
        assignment=np.arange(count, dtype=np.int32),
        row_scales=None if packed.row_scales is None else packed.row_scales[:, None],
    )
    thresholds = np.empty(count, np.float32)
    for index, own in enumerate(members):
        distances = own_distances(gaussians, index, own, threads=threads)
        thresholds[index] = np.percentile(distances, options.percentile) if np.isfinite(distances).all() else np.inf
        if not 0 < thresholds[index] < np.inf:
            raise _no_threshold(classes[index], own)
    small = sum(len(own) < FEW_IMAGES * dimension for own in members)
    return ClassStatistics(gaussians, thresholds, small, added)


def class_moments(
    features: npt.NDArray[np.floating], options: ClassOptions
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean, float64 (d,), and shrunk covariance, float64 (d, d), of the features of one class, (n, d)."""
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    covariance = centred.T @ centred / (len(exact) - 1)
    shrink(covariance, estimated_share(options.shrinkage, exact))
    return mean, covariance


def own_distances(
    gaussians: Gaussians, index: int, features: npt.NDArray[np.float32], *, threads: int = 1
) -> npt.NDArray[np.float32]:
    """Distances, float32 (n,), of features, float32 (n, d), to one class, by the kernel of the device."""
    part = slice(index, index + 1)
    of_class = Gaussians(
        means=gaussians.means[part],
        factors=gaussians.factors[part],
        scales=gaussians.scales[part],
        assignment=np.zeros(1, np.int32),
        row_scales=None if gaussians.row_scales is None else gaussians.row_scales[part],
    )
    return mahalanobis(np.ascontiguousarray(features)[:, None], of_class, threads=threads)[:, 0]


def class_scores(
    gaussians: Gaussians,
    thresholds: npt.NDArray[np.float32],
    features: npt.NDArray[np.float32],
    *,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """Scores, float32 (n,), of features, float32 (n, d): above 1, an image is beyond the threshold of every class.

    The paper's test (equations 3 to 5), that an image is out of distribution if its distance exceeds the threshold of each
    class, is that the smallest ratio of distance and threshold is above 1.
    """
    distances = mahalanobis(np.ascontiguousarray(features)[:, None], gaussians, threads=threads)
    return np.asarray((distances / thresholds).min(axis=1), np.float32)


def _no_threshold(name: str, own: npt.NDArray[np.float32]) -> InputError:
    if (own == own[0]).all():
        return InputError(f"the images of class '{name}' have the same features; expected images that differ")
    return InputError(
        f"the features of class '{name}' reach {np.abs(own).max():.3g}; expected numbers whose squares neither overflow nor "
        "underflow float32: scale what the network gives"
    )


def _check(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], classes: Sequence[str], counts: Sequence[int]
) -> None:
    if len(classes) < 2:
        raise InputError(f"{len(classes)} class ({', '.join(classes) or 'none'}); expected at least 2")
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(classes):
        raise InputError(f"labels from {labels.min()} to {labels.max()}; expected 0 to {len(classes) - 1}")
    for name, count in zip(classes, counts, strict=True):
        if count < 2:
            raise InputError(f"class '{name}' has {count} image{'s' * (count != 1)}; a covariance needs at least 2")
    if not np.isfinite(features).all():
        raise InputError("the network gives NaN or infinite features for these images; check weights and images")
