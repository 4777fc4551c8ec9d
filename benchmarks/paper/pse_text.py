"""What `bench paper pse` prints: the paper's claims and what was found beside them."""

from collections.abc import Iterator, Sequence

import numpy as np

from flawline.benchmarks.paper.pse_detection import DetectionStudy, Summary, spread
from flawline.benchmarks.paper.pse_pretraining import LOSSES, Point, PretrainingStudy
from flawline.benchmarks.tables import table
from flawline.runtime.kernels.pse import proximity_taps

PAPER = "Gudi, Büttner and van Gemert, Proximally Sensitive Error, 2022"
PAPER_DETECTION = {"categories": 15, "mse": 0.66, "mse_std": 0.3, "pse": 0.73, "pse_std": 0.2, "pse_above": 11}
"""Section 4.1.1, figure 4a: MVTec AD, average precision, mean and deviation over its categories."""


def detection_text(summaries: Sequence[Summary], study: DetectionStudy) -> Iterator[str]:
    """Lines on detection."""
    yield (
        f"Detection ({PAPER}, 4.1.1): average precision with the largest error of a pixel as score, on all images but "
        f"the {study.shots} of each kind that choose; mean ± deviation over draws"
    )
    yield ""
    heads = ("category", "draws", "fit", "good", "bad", "chance", "MSE", "PSE", "PSE - MSE", "k MSE", "k PSE", "sigma")
    rows = [
        (
            one.category,
            one.draws,
            one.fitted,
            one.good,
            one.defective,
            f"{one.defective / (one.good + one.defective):.3f}",
            _with_spread(one.mse, one.mse_std),
            _with_spread(one.pse, one.pse_std),
            _with_spread(one.difference, one.difference_std, signed=True),
            f"{one.mse_components:g}",
            f"{one.pse_components:g}",
            f"{one.pse_sigma_px:g}",
        )
        for one in summaries
    ]
    yield table(heads, rows)
    yield "chance: share of bad images. k, sigma: components and px chosen, medians over draws"
    yield ""
    yield "The choice: average precision on the images that chose, and at the best of the grid for those evaluated"
    yield table(
        ("category", "MSE, labelled", "evaluated", "best", "PSE, labelled", "evaluated", "best"),
        [(one.category, *(f"{value:.3f}" for value in _choice(one))) for one in summaries],
    )
    yield ""
    mse, pse = (np.array([getattr(one, error) for one in summaries]) for error in ("mse", "pse"))
    above = int((pse > mse).sum())
    paper = PAPER_DETECTION
    yield table(
        ("mean ± deviation over categories", "categories", "MSE", "PSE", "PSE above MSE in"),
        [
            (
                "paper, MVTec AD",
                paper["categories"],
                f"{paper['mse']} ± {paper['mse_std']}",
                f"{paper['pse']} ± {paper['pse_std']}",
                f"{paper['pse_above']} of {paper['categories']}",
            ),
            (
                "here",
                len(summaries),
                _with_spread(float(mse.mean()), spread(mse)),
                _with_spread(float(pse.mean()), spread(pse)),
                f"{above} of {len(summaries)}",
            ),
        ],
    )
    yield ""
    yield from _detection_verdict(summaries)


def _choice(one: Summary) -> tuple[float, ...]:
    return one.mse_labelled, one.mse, one.mse_best, one.pse_labelled, one.pse, one.pse_best


def _detection_verdict(summaries: Sequence[Summary]) -> Iterator[str]:
    gain = float(np.mean([one.difference for one in summaries]))
    best_gain = float(np.mean([one.pse_best - one.mse_best for one in summaries]))
    if gain > 0:
        yield f"As in the paper, PSE is above MSE on average: by {gain:.3f} ({_paper_gain():.2f} there)."
    else:
        yield f"Unlike the paper, PSE is not above MSE on average: {gain:+.3f} ({_paper_gain():+.2f} there)."
        if best_gain > 0:
            yield (
                f"With the best of the grid PSE would be above by {best_gain:.3f}: not the error, but the choice from so "
                "few images loses it."
            )
        else:
            yield f"Even with the best of the grid it would not be ({best_gain:+.3f}): these flaws do not stand out as regions."
    for one in summaries:
        if one.difference > 0:
            continue
        if one.pse_best > one.mse_best:
            reason = (
                f"the best of the grid would have {one.pse_best:.3f} against {one.mse_best:.3f}, so the labelled images, "
                f"with {one.pse_labelled:.3f} among themselves, chose badly"
            )
        else:
            reason = (
                f"not even the best of the grid would be above ({one.pse_best:.3f} against {one.mse_best:.3f}): no "
                "Gaussian separates them better than single pixels do"
            )
        yield f"{one.category}: PSE not above MSE ({one.difference:+.3f}); {reason}."


def _paper_gain() -> float:
    return PAPER_DETECTION["pse"] - PAPER_DETECTION["mse"]


def pretraining_text(found: Sequence[Point], study: PretrainingStudy) -> Iterator[str]:
    """Lines on pre-training."""
    bottleneck, images = study.middle
    yield (
        f"Pre-training ({PAPER}, 4.2) on MNISTX: accuracy, mean ± deviation over {study.runs} runs; "
        f"PSE with sigma {study.sigma_px:g} px, {study.noise:.0%} of pixels replaced"
    )
    yield (
        f"budget: {study.steps} steps of {study.batch_size} images of each pre-training, {study.labelled} labelled images "
        f"for at most {study.classifier_epochs} epochs, {study.tested} tested"
    )
    sizes = sorted(one for one in found if one.images == images)
    numbers = sorted(one for one in found if one.bottleneck == bottleneck)
    for head, title, points in (
        ("bottleneck", f"by bottleneck, {images} images to pre-train on", sizes),
        ("images", f"by images to pre-train on, bottleneck {bottleneck}", numbers),
    ):
        yield ""
        yield title
        yield _points_table(head, points)
    yield "alive: hidden units that answer to any image after pre-training; ReLU lets the others die"
    yield ""
    yield table(
        ("claim of the paper", "here", "holds"),
        [
            ("PSE above MSE at each bottleneck", *_above(sizes)),
            ("the gap shrinks or inverts at large bottlenecks", *_gap(sizes)),
            ("PSE above MSE at each number of images", *_above(numbers)),
            ("the gap is larger with fewer images", *_gap(numbers)),
        ],
    )
    yield ""
    yield from _pretraining_verdict({(one.bottleneck, one.images): one for one in [*sizes, *numbers]}, study)


def _points_table(head: str, points: Sequence[Point]) -> str:
    rows = [
        (
            getattr(one, head),
            *(_with_spread(one.accuracy[loss], one.std[loss]) for loss in LOSSES),
            _with_spread(one.difference, one.difference_std, signed=True),
            f"{one.active['mse']:.0%}",
            f"{one.active['pse']:.0%}",
        )
        for one in points
    ]
    return table((head, "not pre-trained", "MSE", "PSE", "PSE - MSE", "alive, MSE", "alive, PSE"), rows)


def _above(points: Sequence[Point]) -> tuple[str, str]:
    above = sum(one.difference > 0 for one in points)
    found = f"{above} of {len(points)}, mean {np.mean([one.difference for one in points]):+.3f}"
    return found, _yes(above == len(points))


def _gap(points: Sequence[Point]) -> tuple[str, str]:
    first, last = points[0].difference, points[-1].difference
    return f"{first:+.3f} at the smallest, {last:+.3f} at the largest", _yes(last < first)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _pretraining_verdict(points: dict[tuple[int, int], Point], study: PretrainingStudy) -> Iterator[str]:
    every = list(points.values())
    gain = float(np.mean([one.difference for one in every]))
    direction = "As in the paper, PSE is above" if gain > 0 else "Unlike the paper, PSE is not above"
    yield f"{direction} MSE on average of all points: {gain:+.3f}."
    for loss in ("mse", "pse"):
        over_none = float(np.mean([one.accuracy[loss] - one.accuracy["none"] for one in every]))
        alive = float(np.mean([one.active[loss] for one in every]))
        yield (
            f"{loss.upper()}: {'gains' if over_none > 0 else 'loses'} {abs(over_none):.3f} over no pre-training; "
            f"{alive:.0%} of the hidden units are alive after it."
        )
    within = [one for one in every if one.difference_std is not None and abs(one.difference) <= one.difference_std]
    if within:
        yield (
            f"At {len(within)} of {len(every)} points the difference is within its own deviation over runs: there none is shown."
        )
    taps = proximity_taps(study.sigma_px)
    kept = float((taps @ taps) ** 2)
    yield (
        f"What there is to gain: at sigma {study.sigma_px:g} px PSE keeps {kept:.0%} of the squared error of independent "
        "pixels, as this noise is, and all of that of larger areas."
    )


def _with_spread(value: float, deviation: float | None, *, signed: bool = False) -> str:
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text if deviation is None else f"{text} ± {deviation:.3f}"
