"""How good a classifier is: at telling its classes apart, and at telling images of none of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks import metrics
from flawline.benchmarks.classification_items import ArrayItem
from flawline.benchmarks.datasets import Item
from flawline.benchmarks.evaluation import KindResult
from flawline.runtime import Detector
from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image
from flawline.runtime.map_kinds import MapKind

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Classified:
    """One image after the classifier.

    Attributes:
        item: The image; its kind is the name of its folder.
        score: Of being of none of the classes.
        p_value: Conformal p-value.
        rejected: Whether the score is above the threshold.
        label: Class of the largest logit.
        probability: Of that class, the softmax of the logits.
        nearest: Class whose Gaussian is nearest, in thresholds of that class.
    """

    item: Item
    score: float
    p_value: float
    rejected: bool
    label: str
    probability: float
    nearest: str


@dataclass(frozen=True)
class Agreement:
    """How classes are told apart, on images of classes.

    Attributes:
        images: Number of images.
        accuracy: Share of them whose class is the right one.
        macro_f1: Mean of the F1 scores 2 TP / (2 TP + FP + FN) of the classes that these images are of.
    """

    images: int
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another.

    Attributes:
        kind: Their class.
        taken_for: The other.
        images: How many of them.
        of: Images of their class.
    """

    kind: str
    taken_for: str
    images: int
    of: int


@dataclass(frozen=True)
class Novelty:
    """How images of none of the classes, the positives, are told from images of the classes.

    Attributes:
        prevalence: Share of the positives among all images.
        image_auroc: Area under the ROC of the score.
        average_precision: Average precision of the score.
        f1: F1 score of the rejects at the threshold.
        f1_of_all: The F1 score of rejecting every image, which the prevalence alone gives.
    """

    prevalence: float
    image_auroc: float
    average_precision: float
    f1: float
    f1_of_all: float


@dataclass(frozen=True)
class Beyond:
    """Images that are beyond the threshold of every class, the paper's own verdict: they score above 1.

    Attributes:
        classes: Those of the classes.
        others: Those of none of them.
    """

    classes: int
    others: int


@dataclass(frozen=True)
class ClassifierEvaluation:
    """What a classifier is worth on one set of labelled images.

    Attributes:
        images: Number of images.
        others: How many of them are of none of the classes.
        every: How the classes are told apart, over all images of the classes.
        accepted: Likewise over those that are not rejected; None if all are.
        confusions: Classes taken for others, most images first.
        novelty: None where all images are of classes.
        threshold: Scores above it are rejected.
        false_rejects: Images of the classes that were rejected.
        misses: Images of none of them that were passed.
        beyond: Images that the paper's own verdict rejects; None for another score than `mahalanobis`.
        kinds: One entry per folder, classes first, in their order.
        correct: Images of each class whose class is the right one.
        absent: Classes of which there is no image.
    """

    images: int
    others: int
    every: Agreement
    accepted: Agreement | None
    confusions: list[Confusion]
    novelty: Novelty | None
    threshold: float
    false_rejects: int
    misses: int
    beyond: Beyond | None
    kinds: list[KindResult]
    correct: dict[str, int]
    absent: list[str]


def classify_items(detector: Detector, items: Sequence[Item]) -> Iterator[Classified]:
    """Scores labelled images, one at a time.

    Raises:
        InputError: An image cannot be read, or is not of the classifier's mode or too small; the detector is no classifier.
    """
    for item in items:
        try:
            result = detector(item.images[item.index] if isinstance(item, ArrayItem) else read_image(item.path))
        except InputError as error:
            named = str(error) if str(item.path) in str(error) else f"{item.path}: {error}"
            raise InputError(named) from error
        found = result.classification
        if found is None:
            raise InputError(f"{detector.bundle.path} holds no classifier")
        yield Classified(
            item,
            result.score,
            result.p_value,
            result.verdict == "reject",
            found.label,
            found.probability,
            found.nearest,
        )


def evaluate_classifier(
    classified: Sequence[Classified], classes: Sequence[str], threshold: float, kind: MapKind
) -> ClassifierEvaluation:
    """Measures a classifier from what it said of labelled images.

    Args:
        classified: Every image once; at least one is of a class.
        classes: Names of the classes.
        threshold: The threshold that the verdicts were made with.
        kind: Of the scores.
    """
    known = set(classes)
    other = np.array([one.item.kind not in known for one in classified], bool)
    scores = np.array([one.score for one in classified])
    rejected = np.array([one.rejected for one in classified], bool)
    kinds = np.array([one.item.kind for one in classified])
    right = np.array([one.item.kind == one.label for one in classified], bool)
    names = list(dict.fromkeys(kinds.tolist()))
    every = [one for one in classified if one.item.kind in known]
    accepted = [one for one in every if not one.rejected]
    return ClassifierEvaluation(
        images=len(classified),
        others=int(other.sum()),
        every=_agreement(every),
        accepted=_agreement(accepted) if accepted else None,
        confusions=_confusions(every),
        novelty=_novelty(other, scores, rejected) if other.any() else None,
        threshold=threshold,
        false_rejects=int(np.count_nonzero(rejected & ~other)),
        misses=int(np.count_nonzero(~rejected & other)),
        beyond=_beyond(other, scores) if kind == "mahalanobis" else None,
        kinds=[_kind(name, kinds == name, other, scores, rejected) for name in names],
        correct={name: int(np.count_nonzero(right & (kinds == name))) for name in names if name in known},
        absent=[name for name in classes if name not in names],
    )


def _agreement(classified: Sequence[Classified]) -> Agreement:
    of_class = Counter(one.item.kind for one in classified)
    called = Counter(one.label for one in classified)
    right = Counter(one.label for one in classified if one.label == one.item.kind)
    # A class is found or missed where there are images of it, and called where there are none of it too.
    f1 = [2 * right[name] / (count + called[name]) for name, count in of_class.items()]
    return Agreement(len(classified), right.total() / len(classified), float(np.mean(f1)))


def _confusions(classified: Sequence[Classified]) -> list[Confusion]:
    of_class = Counter(one.item.kind for one in classified)
    pairs = Counter((one.item.kind, one.label) for one in classified if one.item.kind != one.label)
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Confusion(kind, taken_for, images, of_class[kind]) for (kind, taken_for), images in ordered]


def _beyond(other: Bools, scores: NDArray[np.float64]) -> Beyond:
    return Beyond(int(np.count_nonzero((scores > 1) & ~other)), int(np.count_nonzero((scores > 1) & other)))


def _novelty(other: Bools, scores: NDArray[np.float64], rejected: Bools) -> Novelty:
    positives, caught = int(other.sum()), int(np.count_nonzero(rejected & other))
    return Novelty(
        prevalence=positives / other.size,
        image_auroc=metrics.image_auroc(other, scores),
        average_precision=metrics.average_precision(other, scores),
        f1=2 * caught / (positives + int(rejected.sum())),
        f1_of_all=2 * positives / (positives + other.size),
    )


def _kind(name: str, chosen: Bools, other: Bools, scores: NDArray[np.float64], rejected: Bools) -> KindResult:
    is_other = bool(other[chosen].any())
    compared = chosen | ~other
    return KindResult(
        kind=name,
        images=int(chosen.sum()),
        rejected=int(np.count_nonzero(rejected & chosen)),
        median_score=float(np.median(scores[chosen])),
        image_auroc=metrics.image_auroc(chosen[compared], scores[compared]) if is_other else None,
    )
