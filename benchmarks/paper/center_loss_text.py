"""What `bench paper center-loss` prints: both tests by lambda, and the paper's claims beside what was found."""

from collections.abc import Callable, Iterator, Sequence
from statistics import mean, stdev

from flawline.benchmarks.paper.center_loss_claims import PAPER_CLASSIFICATION_F1, Claim, claims
from flawline.benchmarks.paper.center_loss_scores import Detection
from flawline.benchmarks.paper.center_loss_study import Outcome
from flawline.benchmarks.tables import table

LAMBDAS_ARE_LOST = "The paper's list of lambdas is lost in the text that this was written from, which names 0, 0.1 and 1 in its results."


def describe(outcomes: Sequence[Outcome]) -> str:
    """The tables of all experiments, with a final newline.

    Args:
        outcomes: Of at least one network.
    """
    lines = [LAMBDAS_ARE_LOST]
    for name in dict.fromkeys(one.experiment for one in outcomes):
        lines += ["", *_experiment([one for one in outcomes if one.experiment == name])]
    lines += ["", "what the paper claims, beside what was found here", "", *_claims(claims(outcomes))]
    return "\n".join(lines) + "\n"


def _experiment(outcomes: Sequence[Outcome]) -> Iterator[str]:
    first = outcomes[0]
    share = first.normal / (first.normal + first.anomalous)
    low, high = PAPER_CLASSIFICATION_F1[first.network]
    yield f"{first.experiment} against {first.anomalies}, {first.network}"
    yield (
        f"trained on {first.trained} normal images and, for the second head, {first.head_trained} others; tested on "
        f"{first.normal} normal ones (prevalence {share:.3f}) and {first.anomalous} anomalous ones ({1 - share:.3f})"
    )
    yield (
        f"a test that accepts everything has F1 {2 * share / (1 + share):.3f} with normal as the positives (the paper's class "
        f"1), one that rejects everything {2 * (1 - share) / (2 - share):.3f} with anomalous ones as the positives"
    )
    seeds = len({one.seed for one in outcomes})
    if seeds > 1:
        yield f"mean ± standard deviation over {seeds} seeds"
    yield ""
    groups = [
        [one for one in outcomes if one.center_weight == weight]
        for weight in dict.fromkeys(one.center_weight for one in outcomes)
    ]
    yield f"classification (paper: F1 {low} to {high}), and lengths of the deep features"
    yield _table(
        groups,
        {
            "F1": lambda one: one.f1,
            "accuracy": lambda one: one.accuracy,
            "best epoch": lambda one: float(one.best_epoch),
            "length, normal": lambda one: one.norm_normal,
            "length, anomalous": lambda one: one.norm_anomalous,
        },
        {"best epoch": ".1f", "length, normal": ".2f", "length, anomalous": ".2f"},
    )
    yield ""
    yield "semi-supervised: Mahalanobis distance, beyond the threshold of every class (97.5th percentile of its training images)"
    yield _table(
        groups,
        _detection(lambda one: one.semi_supervised) | {"AUROC, percentiles": lambda one: one.percentiles_auroc},
    )
    yield "AUROC: by the smallest ratio of distance and threshold; percentiles: by one percentile of all classes, as in the paper"
    yield ""
    yield "supervised: second head, probability of being normal below 0.5"
    yield _table(groups, _detection(lambda one: one.supervised))
    for pair in first.transfer:
        yield ""
        yield f"transfer: second head trained and tested on different anomalies, {pair}"
        yield _table(groups, _detection(_transferred(pair)))


def _transferred(pair: str) -> Callable[[Outcome], Detection]:
    return lambda one: one.transfer[pair]


def _detection(of: Callable[[Outcome], Detection]) -> dict[str, Callable[[Outcome], float]]:
    return {
        "F1, normal +": lambda one: of(one).f1_normal,
        "F1, anomalous +": lambda one: of(one).f1_anomalous,
        "normal rejected": lambda one: of(one).rejected,
        "anomalous missed": lambda one: of(one).missed,
        "AUROC": lambda one: of(one).auroc,
    }


def _table(
    groups: Sequence[Sequence[Outcome]],
    columns: dict[str, Callable[[Outcome], float]],
    forms: dict[str, str] | None = None,
) -> str:
    rows = [
        [
            f"{group[0].center_weight:g}",
            *(
                _spread([value(one) for one in group], (forms or {}).get(name, ".4f"))
                for name, value in columns.items()
            ),
        ]
        for group in groups
    ]
    return table(("lambda", *columns), rows)


def _spread(values: Sequence[float], form: str) -> str:
    return f"{mean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")


def _claims(found: Sequence[Claim]) -> Iterator[str]:
    rows = [
        (one.title, "" if one.positive is None else one.positive, one.paper, " / ".join(one.ours), one.verdict)
        for one in found
    ]
    yield table(("claim", "positives", "paper", "here (experiments by comma, seeds by slash)", "verdict"), rows)
    by_reason: dict[str, list[Claim]] = {}
    for one in found:
        if one.reason:
            by_reason.setdefault(one.reason, []).append(one)
    yield ""
    if not by_reason:
        yield "Every claim is as in the paper."
        return
    yield "Why, as far as the numbers show it (first seed):"
    for reason, apart in by_reason.items():
        for one in apart:
            positives = "" if one.positive is None else f" ({one.positive} as positives)"
            yield f"- {one.title}{positives}: {one.verdict}"
        yield f"  {reason}"
