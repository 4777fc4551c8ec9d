"""What Feeney and Hughes (2021) claim of error maps and saliency maps, and whether it is so here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flawline.benchmarks.paper.saliency_comparison import Estimate, Group, SeedResult
from flawline.benchmarks.paper.saliency_options import COUNTS

Verdict = Literal["as in the paper", "the other way round", "not to be told from chance"]
Kind = Literal["agreement", "distance", "squared saliency"]

PAPER_MAJORITY = {5: {"normal": 0.26, "novel": 0.19}, 10: {"normal": 0.19, "novel": 0.08}}
"""Table 1: share of the images with 3 to 5 of 5, and 6 to 10 of 10, pixels in common."""

PAPER_MOST_FREQUENT = {"normal": 4, "novel": 2}
"""Finding 3, figure 2: of 10 pixels."""

PAPER_DISTANCE_PX = {5: {"normal": 8.28, "novel": 9.25}, 10: {"normal": 8.14, "novel": 8.90}}
"""Finding 5: mean of the maximum distance to the best match."""

PAPER_SALIENCY = {"normal": 0.0303, "novel": 0.0305}
"""Finding 6: mean squared difference of scaled saliency and error."""

PAPER_SQUARED_SALIENCY = {"normal": 0.0071, "novel": 0.0072}
"""Likewise of squared saliency and error."""

_CLEAR = 2.0
"""Standard errors that a difference must exceed."""


@dataclass(frozen=True)
class Claim:
    """A difference that the paper finds.

    Attributes:
        kind: What is compared.
        title: The claim.
        paper: Its difference.
        ours: The difference of each seed.
    """

    kind: Kind
    title: str
    paper: float
    ours: tuple[Estimate, ...]

    @property
    def mean(self) -> float:
        """The difference, mean over seeds."""
        return sum(one.mean for one in self.ours) / len(self.ours)

    @property
    def verdict(self) -> Verdict:
        """Whether the direction is the paper's: beyond two standard errors, and with every seed."""
        signed = [(one.mean if self.paper > 0 else -one.mean, _CLEAR * one.standard_error) for one in self.ours]
        if all(difference > chance for difference, chance in signed):
            return "as in the paper"
        if all(-difference > chance for difference, chance in signed):
            return "the other way round"
        return "not to be told from chance"


def claims(results: Sequence[SeedResult]) -> list[Claim]:
    """The paper's claims of direction: findings 4, 5 and 6.

    Args:
        results: Of at least one seed.
    """
    groups = [(one.groups["normal"], one.groups["novel"]) for one in results]
    found: list[Claim] = []
    for count in COUNTS:
        ours = tuple(_apart(novel.majority[count], normal.majority[count]) for normal, novel in groups)
        paper = PAPER_MAJORITY[count]
        title = f"top {count}: fewer novel images agree in most pixels"
        found.append(Claim("agreement", title, paper["novel"] - paper["normal"], ours))
    for count in COUNTS:
        ours = tuple(_apart(novel.distance_px[count], normal.distance_px[count]) for normal, novel in groups)
        paper = PAPER_DISTANCE_PX[count]
        title = f"top {count}: the best match is farther away in novel images, px"
        found.append(Claim("distance", title, paper["novel"] - paper["normal"], ours))
    for name in PAPER_SALIENCY:
        ours = tuple(_negative(one.groups[name].gain) for one in results)
        difference = PAPER_SQUARED_SALIENCY[name] - PAPER_SALIENCY[name]
        found.append(Claim("squared saliency", f"{name}: squared saliency is closer to the error", difference, ours))
    return found


def most_frequent(group: Group, count: int) -> int:
    """How many of the K largest pixels the two maps most often have in common; the smaller one of equals."""
    frequencies = group.frequencies[count]
    return frequencies.index(max(frequencies))


def _apart(first: Estimate, second: Estimate) -> Estimate:
    """First less second, of different images."""
    return Estimate(first.mean - second.mean, (first.standard_error**2 + second.standard_error**2) ** 0.5)


def _negative(estimate: Estimate) -> Estimate:
    return Estimate(-estimate.mean, estimate.standard_error)
