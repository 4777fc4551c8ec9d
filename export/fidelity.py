"""The second gate: a detector in another precision against the float detector, on held-out real images.

Each of the two has statistics of its own, so that the scores need not be equal; they must mean the same. A network that lost a
layer, or sees another brightness, can still give good images inconspicuous scores, since its statistics were learnt from what
it gives: hence features are compared as well, and the order of the images.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.export.parity import ParityError
from flawline.runtime.bundle.manifest import Report
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import Precision

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = LazyModule("scipy.stats", "pip install 'flawline[fit]'")

Frame = npt.NDArray[np.uint8]


class Tolerance(NamedTuple):
    """What passes.

    Attributes:
        feature_error: Largest relative L2 error of a feature map, all images together.
        score_error_median: Largest median over images of the relative score error.
        score_error_p99: Largest 99th percentile of it.
        rank_correlation: Smallest correlation of the images' ranks (Spearman), of `RANKED_IMAGES` or more: of a few that score
            alike, two that change places are noise. A score that is constant never passes.
        flipped_share: Largest share of images whose verdict differs, each detector at its own threshold; two may always,
            one that moves up and the other that it moves down.
        image_auroc_drop: Largest loss of AUROC over labelled images, where there are any.
    """

    feature_error: float
    score_error_median: float
    score_error_p99: float
    rank_correlation: float
    flipped_share: float
    image_auroc_drop: float


# bf16 has eight bits of mantissa too. Seen on held-out good images of three products with two networks: features up to
# 0.104, median 0.010, p99 0.06, ranks from 0.993 on; in fp16 0.002, 0.0002, 0.001, 0.99998.
_EIGHT_BITS = Tolerance(0.2, 0.03, 0.12, 0.95, 0.05, 0.005)
TOLERANCES: dict[Precision, Tolerance] = {
    "fp16": Tolerance(0.01, 0.002, 0.01, 0.99, 0.02, 0.0005),
    "bf16": _EIGHT_BITS,
    "int8": _EIGHT_BITS,
    "int8-openvino": _EIGHT_BITS,
    "int8-tensorrt": _EIGHT_BITS,
}


RANKED_IMAGES = 20
"""From as many images on their order is judged."""


class Scores(NamedTuple):
    """What a detector says of the held-out images, and of labelled ones if there are any.

    Attributes:
        scores: float32 (n,), image by image.
        threshold: Scores above it are rejected.
        image_auroc: Over the labelled images.
    """

    scores: npt.NDArray[np.float32]
    threshold: float
    image_auroc: float | None = None


def feature_error(reference: FeatureExtractor, extractor: FeatureExtractor, frames: Iterable[Frame]) -> float:
    """Relative L2 error of the feature maps, sqrt(sum |a - b|^2 / sum |a|^2), of the output where it is largest.

    Args:
        reference: The float network; for one frame at a time.
        extractor: The network in another precision, likewise.
        frames: Real frames.
    """
    wrong, whole = np.zeros(len(reference.maps)), np.zeros(len(reference.maps))
    for frame in frames:
        for network in (reference, extractor):
            network.load(0, frame)
            network.run()
        for output, (expected, received) in enumerate(zip(reference.maps, extractor.maps, strict=True)):
            wrong[output] += np.square(received - expected, dtype=np.float64).sum()
            whole[output] += np.square(expected, dtype=np.float64).sum()
    return float(np.sqrt(wrong / whole).max())


def image_auroc(scores: npt.NDArray[np.float32], defective: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC: the share of pairs in which the defective image scores higher; ties count half.

    Args:
        scores: float32 (n,).
        defective: bool (n,), both values occur.
    """
    statistic = stats.mannwhitneyu(scores[defective], scores[~defective]).statistic
    return float(statistic / (defective.sum() * (~defective).sum()))


def check(
    precision: Precision, reference: Scores, received: Scores, features: float, *, relative: bool = True
) -> Report:
    """Lets pass only a detector that means what the float detector means.

    Args:
        precision: Of the network.
        reference: The float detector's.
        received: The detector's.
        features: What `feature_error` says.
        relative: Whether the errors of scores are relative to them; of probabilities they are differences.

    Returns:
        What the manifest says of it.

    Raises:
        ParityError: A figure is beyond its tolerance, or not a number.
    """
    images = len(received.scores)
    expected = reference.scores.astype(np.float64)
    errors = np.abs(received.scores / expected - 1 if relative else received.scores - expected)
    flips = int(((received.scores > received.threshold) != (reference.scores > reference.threshold)).sum())
    constant = np.ptp(received.scores) == 0 or np.ptp(reference.scores) == 0
    ranks = 0.0 if constant else float(stats.spearmanr(reference.scores, received.scores).statistic)
    tolerance = TOLERANCES[precision]
    found = {
        "feature_error": features,
        "score_error_median": float(np.median(errors)),
        "score_error_p99": float(np.percentile(errors, 99, method="higher")),
        "score_error_max": float(errors.max()),
        "rank_correlation": ranks,
        "flipped_verdicts": float(flips),
    }
    # Each is what must hold, so that NaN does not pass.
    passes = {
        "feature_error": features <= tolerance.feature_error,
        "score_error_median": found["score_error_median"] <= tolerance.score_error_median,
        "score_error_p99": found["score_error_p99"] <= tolerance.score_error_p99,
        "rank_correlation": ranks >= tolerance.rank_correlation or (images < RANKED_IMAGES and not constant),
        "flipped_verdicts": flips <= max(2, tolerance.flipped_share * images),
    }
    if reference.image_auroc is not None and received.image_auroc is not None:
        found |= {
            "float_image_auroc": reference.image_auroc,
            "image_auroc": received.image_auroc,
            "image_auroc_drop": reference.image_auroc - received.image_auroc,
        }
        passes["image_auroc_drop"] = found["image_auroc_drop"] <= tolerance.image_auroc_drop
    for name, passed in passes.items():
        if not passed:
            raise ParityError(
                f"in {precision} the detector does not score like the float detector: {name.replace('_', ' ')} "
                f"{found[name]:.3g} on {images} held-out images; the tolerances are {_text(tolerance)}; nothing was written"
            )
    limits = {f"{name}_tolerance": limit for name, limit in tolerance._asdict().items()}
    return {"reference": "the float detector", "images": images, **found, **limits}


def _text(tolerance: Tolerance) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in tolerance._asdict().items())
