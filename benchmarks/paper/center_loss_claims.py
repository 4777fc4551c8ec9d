"""What the paper on center loss claims, and whether it is so here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flawline.benchmarks.paper.center_loss_scores import Detection
from flawline.benchmarks.paper.center_loss_study import Outcome

Verdict = Literal["as in the paper", "not as in the paper", "depends on the seed"]
Positive = Literal["normal", "anomalous"]
Method = Literal["semi_supervised", "supervised"]
POSITIVES: tuple[Positive, ...] = ("normal", "anomalous")
Series = Mapping[float, Outcome]
"""The networks of one experiment and seed, by lambda."""

PAPER_CLASSIFICATION_F1 = {"lenet": (0.9852, 0.9915), "efficientnet-b0": (0.9897, 0.9989)}
"""Section III: ranges over experiments and lambdas."""

PAPER_LARGEST_LOSS_OF_F1 = 0.005295
"""Section III: of classification, by center loss."""

PAPER_GAIN = 0.03
"""Section III: of F1, semi-supervised, exceeded in so many experiments."""

PAPER_GAINS = (3, 5)

PAPER_LARGEST_DROP = 0.19
"""Section III: of F1, supervised, by center loss."""

PAPER_BEST_LAMBDAS = (0.1, 1.0)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Attributes:
        title: What it says.
        positive: Whose F1 score it is about; None where it is about something else.
        paper: Its number.
        ours: The number of each seed.
        holds: Whether it is so, with each seed.
        reason: Why not, as far as the numbers show it; empty where it is so.
    """

    title: str
    positive: Positive | None
    paper: str
    ours: tuple[str, ...]
    holds: tuple[bool, ...]
    reason: str

    @property
    def verdict(self) -> Verdict:
        """By the numbers alone: with every seed, with none, or with some."""
        if all(self.holds):
            return "as in the paper"
        return "depends on the seed" if any(self.holds) else "not as in the paper"


def claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """The paper's claims that these networks have a say in: those on lambda need 0 and another one.

    Args:
        outcomes: At least one.
    """
    by_seed = [
        _series([one for one in outcomes if one.seed == seed]) for seed in sorted({one.seed for one in outcomes})
    ]
    found = list(_classification(by_seed))
    compares = all(0.0 in one and len(one) > 1 for each in by_seed for one in each)
    for positive in POSITIVES:
        if compares:
            found += _semi_supervised(by_seed, positive)
            found += _supervised(by_seed, positive)
        found.append(_methods(by_seed, positive))
    if compares:
        found += _areas(by_seed)
    return found


def score(one: Outcome, method: Method, positive: Positive) -> float:
    """The F1 score of a test."""
    measured = _of(one, method)
    return measured.f1_normal if positive == "normal" else measured.f1_anomalous


def _of(one: Outcome, method: Method) -> Detection:
    return one.semi_supervised if method == "semi_supervised" else one.supervised


def _series(outcomes: Sequence[Outcome]) -> list[Series]:
    names = dict.fromkeys(one.experiment for one in outcomes)
    return [{one.center_weight: one for one in outcomes if one.experiment == name} for name in names]


def _classification(by_seed: Sequence[Sequence[Series]]) -> Iterator[Claim]:
    for network, (low, high) in PAPER_CLASSIFICATION_F1.items():
        values = [[one.f1 for own in each for one in own.values() if one.network == network] for each in by_seed]
        if not all(values):
            continue
        holds = tuple(low <= min(own) and max(own) <= high for own in values)
        ours = tuple(f"{min(own):.4f} to {max(own):.4f}" for own in values)
        least, most = min(map(min, values)), max(map(max, values))
        apart = [f"{low - least:.4f} below"] * (least < low) + [f"{most - high:.4f} above"] * (most > high)
        budgets = sorted({(one.trained, len(one.epochs)) for each in by_seed for own in each for one in own.values()})
        trained = "; ".join(f"{images} images, epochs {epochs}" for images, epochs in budgets)
        reason = f"up to {' and '.join(apart)}; trained here: {trained}; the paper's budget is not known"
        yield _claim(f"classification F1 of {network}", None, f"{low} to {high}", ours, holds, reason)
    if not all(0.0 in one and len(one) > 1 for each in by_seed for one in each):
        return
    gains = [
        [_best(own, lambda one: one.f1) - own[0.0].f1 for own in each if own[0.0].network == "lenet"]
        for each in by_seed
    ]
    if all(gains):
        yield _claim(
            "center loss improves the classification F1 of LeNet in all experiments",
            None,
            "all",
            tuple(_signed(own) for own in gains),
            tuple(min(own) > 0 for own in gains),
            "; ".join(_by_lambda(own, lambda one: one.f1) for own in by_seed[0]),
        )
    losses = [max(own[0.0].f1 - one.f1 for own in each for one in own.values()) for each in by_seed]
    yield _claim(
        "center loss lowers the classification F1 by no more than",
        None,
        f"{PAPER_LARGEST_LOSS_OF_F1}",
        tuple(f"{own:.4f}" for own in losses),
        tuple(own <= PAPER_LARGEST_LOSS_OF_F1 for own in losses),
        "the largest loss is at "
        + ", ".join(
            f"lambda {weight:g} ({name})" for weight, name in sorted({_largest_loss(each) for each in by_seed})
        ),
    )


def _semi_supervised(by_seed: Sequence[Sequence[Series]], positive: Positive) -> Iterator[Claim]:
    def value(one: Outcome) -> float:
        return score(one, "semi_supervised", positive)

    gains = [[_best(own, value) - value(own[0.0]) for own in each] for each in by_seed]
    why = "; ".join(_at_threshold(own, value) for own in by_seed[0])
    yield _claim(
        "semi-supervised: center loss raises F1 in all experiments",
        positive,
        "all",
        tuple(_signed(own) for own in gains),
        tuple(min(own) > 0 for own in gains),
        why,
    )
    many, of = PAPER_GAINS
    above = [sum(gain > PAPER_GAIN for gain in own) for own in gains]
    room = [
        f"{next(iter(own.values())).experiment}: without center loss F1 is {value(own[0.0]):.3f}, so that it could not rise by more"
        for own in by_seed[0]
        if 1 - value(own[0.0]) <= PAPER_GAIN
    ]
    yield _claim(
        f"semi-supervised: by more than {PAPER_GAIN} in {many} of {of} experiments",
        positive,
        f"{many} of {of}",
        tuple(f"{count} of {len(own)}" for count, own in zip(above, gains, strict=True)),
        tuple(count * of >= many * len(own) for count, own in zip(above, gains, strict=True)),
        "; ".join((*room, why)),
    )
    best = [[max(own, key=lambda weight: value(own[weight])) for own in each] for each in by_seed]
    yield _claim(
        "semi-supervised: the best lambda is 0.1 or 1",
        positive,
        "0.1 or 1",
        tuple(", ".join(f"{weight:g}" for weight in own) for own in best),
        tuple(all(weight in PAPER_BEST_LAMBDAS for weight in own) for own in best),
        why,
    )


def _supervised(by_seed: Sequence[Sequence[Series]], positive: Positive) -> Iterator[Claim]:
    def value(one: Outcome) -> float:
        return score(one, "supervised", positive)

    drops = [[value(own[0.0]) - min(value(one) for one in own.values()) for own in each] for each in by_seed]
    best = [[_best(own, value) - value(own[0.0]) for own in each] for each in by_seed]
    yield _claim(
        "supervised: F1 is best without center loss",
        positive,
        "all",
        tuple(f"with it at best {_signed(own)}" for own in best),
        tuple(max(own) <= 0 for own in best),
        "; ".join(_by_lambda(own, value) for own in by_seed[0]),
    )
    yield _claim(
        "supervised: center loss lowers F1 by at most",
        positive,
        f"{PAPER_LARGEST_DROP}",
        tuple(f"{max(own):.4f}" for own in drops),
        tuple(max(own) <= PAPER_LARGEST_DROP for own in drops),
        "a center loss so strong leaves features that say less of what is not normal",
    )


def _methods(by_seed: Sequence[Sequence[Series]], positive: Positive) -> Claim:
    pairs = [
        [
            (score(one, "supervised", positive) - score(one, "semi_supervised", positive), one)
            for own in each
            for one in own.values()
        ]
        for each in by_seed
    ]
    below = sorted({f"{one.experiment}, lambda {one.center_weight:g}" for own in pairs for gap, one in own if gap <= 0})
    return _claim(
        "supervised is above semi-supervised",
        positive,
        "all",
        tuple(f"{min(gap for gap, _ in own):+.4f} to {max(gap for gap, _ in own):+.4f}" for own in pairs),
        tuple(min(gap for gap, _ in own) > 0 for own in pairs),
        f"not so: {'; '.join(below)}",
    )


def _areas(by_seed: Sequence[Sequence[Series]]) -> Iterator[Claim]:
    areas: tuple[tuple[str, Callable[[Outcome], float], int], ...] = (
        ("semi-supervised: the largest lambda raises the AUROC", lambda one: one.percentiles_auroc, 1),
        ("supervised: the largest lambda lowers the AUROC", lambda one: one.supervised.auroc, -1),
    )
    for title, value, sign in areas:
        changes = [[value(own[max(own)]) - value(own[0.0]) for own in each] for each in by_seed]
        yield _claim(
            title,
            None,
            "all",
            tuple(_signed(own) for own in changes),
            tuple(all(sign * change > 0 for change in own) for own in changes),
            "; ".join(
                f"{own[0.0].experiment}: {value(own[0.0]):.4f} without center loss, {value(own[max(own)]):.4f} at "
                f"lambda {max(own):g}"
                for own in by_seed[0]
            ),
        )


def _claim(
    title: str, positive: Positive | None, paper: str, ours: tuple[str, ...], holds: tuple[bool, ...], reason: str
) -> Claim:
    return Claim(title, positive, paper, ours, holds, "" if all(holds) else reason)


def _best(own: Series, value: Callable[[Outcome], float]) -> float:
    """The best with center loss."""
    return max(value(one) for weight, one in own.items() if weight > 0)


def _largest_loss(each: Sequence[Series]) -> tuple[float, str]:
    _, weight, name = max((own[0.0].f1 - one.f1, weight, one.experiment) for own in each for weight, one in own.items())
    return weight, name


def _signed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.4f}" for value in values)


def _by_lambda(own: Series, value: Callable[[Outcome], float]) -> str:
    values = ", ".join(f"{weight:g}: {value(one):.4f}" for weight, one in own.items())
    return f"{next(iter(own.values())).experiment}: F1 by lambda {values}"


def _at_threshold(own: Series, value: Callable[[Outcome], float]) -> str:
    """Which of the two errors moved."""
    without, best = own[0.0], max((one for weight, one in own.items() if weight > 0), key=value)
    before, after = without.semi_supervised, best.semi_supervised
    return (
        f"{without.experiment}: from lambda 0 to {best.center_weight:g} normal images rejected go from "
        f"{before.rejected:.3f} to {after.rejected:.3f}, anomalous ones missed from {before.missed:.3f} to {after.missed:.3f}"
    )
