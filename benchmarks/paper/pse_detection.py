"""The Proximally Sensitive Error against the mean squared error in few-shot detection (Gudi and others, 2022, section 4.1).

Principal components of good images reconstruct an image, and the largest error of a pixel is its score. Labelled images,
five of each kind, choose the number of components and the sigma of the error; all others are evaluated. The mean
squared error is the case of sigma 0, for which the number of components alone is chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.metrics import average_precision
from flawline.benchmarks.paper.labelled_sets import GOOD, LabelledSet, Split
from flawline.calibration.component_choice import Grid, choose_by_labels, grid_scores
from flawline.calibration.principal_components import PrincipalComponents, principal_components
from flawline.runtime.errors import InputError

ERRORS = ("mse", "pse")

# Bounds the memory of residuals in float32: 64 KiB for each image.
_IMAGES_AT_ONCE = 512


@dataclass(frozen=True)
class DetectionStudy:
    """What is asked.

    Attributes:
        shots: Labelled images of each kind, the good ones included.
        draws: Of labelled images, and of images to fit where a set has no division of its own.
        seed: Of the first draw.
        components: Numbers of principal components to choose from.
        sigmas_px: Sigmas of PSE to choose from, above 0.
    """

    shots: int = 5
    draws: int = 10
    seed: int = 0
    components: tuple[int, ...] = tuple(Grid().components)
    sigmas_px: tuple[float, ...] = tuple(sigma for sigma in Grid().sigmas if sigma > 0)

    def grid(self, error: str, fitted: int) -> Grid:
        """What an error chooses from, with so many components fitted."""
        return Grid(self.components, (0.0,) if error == "mse" else self.sigmas_px).up_to(fitted)


class Outcome(NamedTuple):
    """One error in one draw.

    Attributes:
        components: That the labelled images chose.
        sigma_px: Likewise; 0 for MSE.
        labelled_average_precision: On these images.
        average_precision: On the images that are evaluated.
        best_average_precision: On these, with the best of the grid for them: what a better choice could reach at most.
    """

    components: int
    sigma_px: float
    labelled_average_precision: float
    average_precision: float
    best_average_precision: float


class Draw(NamedTuple):
    """One draw of labelled images of a category.

    Attributes:
        category: The set, with the kind of flaw where each is a category.
        number: From 0 on.
        split: Of the set.
        fitted: Good images that were fitted.
        labelled: Names of the images that chose.
        good: Good images that were evaluated.
        defective: Defective ones.
        mse: What the squared error gave.
        pse: What the Proximally Sensitive Error gave.
    """

    category: str
    number: int
    split: int
    fitted: int
    labelled: tuple[str, ...]
    good: int
    defective: int
    mse: Outcome
    pse: Outcome


def detect(labelled: LabelledSet, study: DetectionStudy) -> Iterator[Draw]:
    """Every draw of every category of a set.

    Raises:
        InputError: A kind has too few images to draw from and to evaluate, or there are too few to fit.
    """
    divisions = labelled.divisions or study.draws
    for number in range(min(divisions, study.draws)):
        split = labelled.split(number)
        categories = _categories(labelled, split, study.shots)
        most = min(study.components[-1], len(split.fit) - 1)
        fitted = principal_components(split.fit, most, seed=study.seed)
        scores = {error: _scores(fitted, split, study.grid(error, most)) for error in ERRORS}
        for draw in range(number, study.draws, divisions):
            generator = np.random.Generator(np.random.Philox(key=study.seed + draw))
            order = generator.permutation(len(split.kinds))
            for category, kinds in categories.items():
                yield _draw(category, kinds, draw, number, order, split, fitted, scores, study)


def _categories(labelled: LabelledSet, split: Split, shots: int) -> dict[str, frozenset[str]]:
    """The kinds of images in each category."""
    flaws = sorted(set(split.kinds) - {GOOD})
    kinds = np.array(split.kinds)
    shared = bool((split.may_choose & split.may_test).any())
    for kind in (GOOD, *flaws):
        there = int(((kinds == kind) & split.may_choose).sum())
        if there < shots + shared or not ((kinds == kind) & split.may_test).any():
            raise InputError(
                f"{labelled.name}: {there} images of '{kind}' to draw {shots} labelled ones from; expected more, so that "
                "some are left to evaluate: give more images, or fewer --shots"
            )
    if not flaws:
        raise InputError(f"{labelled.name}: no defective images; expected test/KIND beside test/{GOOD}")
    if labelled.per_kind:
        return {f"{labelled.name}, {kind}": frozenset((GOOD, kind)) for kind in flaws}
    return {labelled.name: frozenset((GOOD, *flaws))}


def _scores(fitted: PrincipalComponents, split: Split, grid: Grid) -> npt.NDArray[np.float64]:
    """Scores of all labelled images for everything on the grid, float64 (components, sigmas, m)."""
    starts = range(0, len(split.images), _IMAGES_AT_ONCE)
    parts = [grid_scores(fitted, split.images[start : start + _IMAGES_AT_ONCE], grid) for start in starts]
    return np.concatenate(parts, axis=2)


def _draw(
    category: str,
    kinds: frozenset[str],
    number: int,
    division: int,
    order: npt.NDArray[np.int64],
    split: Split,
    fitted: PrincipalComponents,
    scores: dict[str, npt.NDArray[np.float64]],
    study: DetectionStudy,
) -> Draw:
    drawn = _drawn(split, kinds, order, study.shots)
    evaluated = [
        index
        for index, kind in enumerate(split.kinds)
        if kind in kinds and split.may_test[index] and index not in set(drawn)
    ]
    defective = np.array([kind != GOOD for kind in split.kinds])
    outcomes = {}
    for error in ERRORS:
        grid = study.grid(error, len(fitted.basis))
        # The labelled images and nothing else.
        choice = choose_by_labels(fitted, split.images[drawn], defective[drawn], grid)
        values = np.array(
            [
                [average_precision(defective[evaluated], of_sigma[evaluated]) for of_sigma in of_components]
                for of_components in scores[error]
            ]
        )
        at = list(grid.components).index(choice.components), list(grid.sigmas).index(choice.sigma)
        outcomes[error] = Outcome(choice.components, choice.sigma, choice.value, float(values[at]), float(values.max()))
    return Draw(
        category,
        number,
        division,
        len(split.fit),
        tuple(split.names[index] for index in drawn),
        good=int((~defective[evaluated]).sum()),
        defective=int(defective[evaluated].sum()),
        **outcomes,
    )


def _drawn(split: Split, kinds: frozenset[str], order: npt.NDArray[np.int64], shots: int) -> list[int]:
    """The first so many of each kind in that order, by number."""
    left = dict.fromkeys(kinds, shots)
    drawn = []
    for index in order.tolist():
        kind = split.kinds[index]
        if left.get(kind, 0) and split.may_choose[index]:
            left[kind] -= 1
            drawn.append(index)
    return sorted(drawn)


@dataclass(frozen=True)
class Summary:
    """A category over its draws.

    Attributes:
        category: Its name.
        draws: How many.
        fitted: Good images fitted, in the first draw.
        good: Good images evaluated, likewise.
        defective: Defective ones.
        mse: Average precision of MSE, mean over draws.
        mse_std: Standard deviation over draws; None for one draw.
        pse: Of PSE, mean.
        pse_std: Likewise.
        difference: PSE less MSE, mean over draws.
        difference_std: Of the differences draw by draw.
        mse_labelled: Mean of `Outcome.labelled_average_precision`.
        pse_labelled: Likewise.
        mse_best: Mean of `Outcome.best_average_precision`.
        pse_best: Likewise.
        mse_components: Median of those chosen.
        pse_components: Likewise.
        pse_sigma_px: Likewise.
    """

    category: str
    draws: int
    fitted: int
    good: int
    defective: int
    mse: float
    mse_std: float | None
    pse: float
    pse_std: float | None
    difference: float
    difference_std: float | None
    mse_labelled: float
    pse_labelled: float
    mse_best: float
    pse_best: float
    mse_components: float
    pse_components: float
    pse_sigma_px: float


def summarise(draws: Sequence[Draw]) -> list[Summary]:
    """The categories, in the order in which they were first met."""
    summaries = []
    for category in dict.fromkeys(draw.category for draw in draws):
        own = [draw for draw in draws if draw.category == category]
        mse = np.array([draw.mse.average_precision for draw in own])
        pse = np.array([draw.pse.average_precision for draw in own])
        summaries.append(
            Summary(
                category,
                draws=len(own),
                fitted=own[0].fitted,
                good=own[0].good,
                defective=own[0].defective,
                mse=float(mse.mean()),
                mse_std=spread(mse),
                pse=float(pse.mean()),
                pse_std=spread(pse),
                difference=float((pse - mse).mean()),
                difference_std=spread(pse - mse),
                mse_labelled=float(np.mean([draw.mse.labelled_average_precision for draw in own])),
                pse_labelled=float(np.mean([draw.pse.labelled_average_precision for draw in own])),
                mse_best=float(np.mean([draw.mse.best_average_precision for draw in own])),
                pse_best=float(np.mean([draw.pse.best_average_precision for draw in own])),
                mse_components=float(np.median([draw.mse.components for draw in own])),
                pse_components=float(np.median([draw.pse.components for draw in own])),
                pse_sigma_px=float(np.median([draw.pse.sigma_px for draw in own])),
            )
        )
    return summaries


def spread(values: npt.NDArray[np.float64]) -> float | None:
    """Standard deviation with n - 1; None for one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else None
