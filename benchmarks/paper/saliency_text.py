"""What `bench paper saliency` prints: the paper's values and ours side by side, and where they point apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean

from flawline.benchmarks.paper.saliency_claims import (
    PAPER_DISTANCE_PX,
    PAPER_MAJORITY,
    PAPER_MOST_FREQUENT,
    PAPER_SALIENCY,
    PAPER_SQUARED_SALIENCY,
    Claim,
    claims,
    most_frequent,
)
from flawline.benchmarks.paper.saliency_comparison import Group, SeedResult
from flawline.benchmarks.paper.saliency_options import COUNTS, GROUPS
from flawline.benchmarks.tables import table

_PLOTTED = 10
"""K of the paper's figure 2."""

_NEXT_TO_NOTHING = 0.1
"""Of what the network adds to the gradient, relative to the residual."""


def describe(results: Sequence[SeedResult]) -> str:
    """The tables of all seeds, with a final newline.

    Args:
        results: Of at least one seed.
    """
    first = results[0].groups
    found = claims(results)
    lines = [
        f"MNIST, tested on {first['normal'].images} normal digits (0 to 4) and {first['novel'].images} novel ones (5 to 9)",
        *(_training(one) for one in results),
        "",
        table(("", "paper, normal", "ours", "paper, novel", "ours"), list(_values(results))),
        "",
        f"figure 2: share of the images by how many of the {_PLOTTED} largest pixels both maps have in common",
        "",
        _frequencies(results),
        "",
        "what the paper claims: differences, with two standard errors over images",
        "",
        _claims(found),
        "",
        *_apart(found, results),
    ]
    return "\n".join(lines) + "\n"


def _training(one: SeedResult) -> str:
    training, validation = one.epochs[one.best_epoch - 1]
    line = (
        f"seed {one.seed}: {one.images} normal digits, epochs trained {len(one.epochs)}, weights of epoch {one.best_epoch}: "
        f"loss {training:.4f}, on validation digits {validation:.4f}"
    )
    if one.stopped_early:
        return f"{line}; it fell no further"
    return f"{line}; still falling when the budget ended" if one.best_epoch == len(one.epochs) else line


def _values(results: Sequence[SeedResult]) -> Iterator[list[str]]:
    groups = {name: [one.groups[name] for one in results] for name in GROUPS}

    def ours(value: Callable[[Group], float]) -> dict[str, list[float]]:
        return {name: [value(one) for one in each] for name, each in groups.items()}

    for count in COUNTS:
        majority = {name: [one.majority[count].mean for one in each] for name, each in groups.items()}
        minority = {name: [1 - share for share in shares] for name, shares in majority.items()}
        half, paper = count // 2, PAPER_MAJORITY[count]
        others = {name: 1 - share for name, share in paper.items()}
        yield _row(f"top {count}: 0 to {half} in common (table 1)", others, minority, ".2f")
        yield _row(f"top {count}: {half + 1} to {count} in common (table 1)", paper, majority, ".2f")
    common = ours(lambda group: most_frequent(group, _PLOTTED))
    yield _row(f"top {_PLOTTED}: in common most often (figure 2)", PAPER_MOST_FREQUENT, common, "g")
    for count in COUNTS:
        distance_px = {name: [one.distance_px[count].mean for one in each] for name, each in groups.items()}
        title = f"top {count}: maximum distance to the best match, px"
        yield _row(title, PAPER_DISTANCE_PX[count], distance_px, ".2f")
    difference = "mean squared difference of error and"
    yield _row(f"{difference} saliency", PAPER_SALIENCY, ours(lambda group: group.saliency.mean), ".4f")
    squared = ours(lambda group: group.squared_saliency.mean)
    yield _row(f"{difference} squared saliency", PAPER_SQUARED_SALIENCY, squared, ".4f")
    yield _row("mean squared error of the reconstruction", {}, ours(lambda group: group.mean_squared_error), ".4f")
    added = ours(lambda group: group.through_network.mean)
    yield _row("gradient that the network adds, of the residual", {}, added, ".3f")


def _row(title: str, paper: Mapping[str, float], ours: Mapping[str, Sequence[float]], form: str) -> list[str]:
    cells = [title]
    for name, values in ours.items():
        spread = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
        cells += [f"{paper[name]:{form}}" if name in paper else "", f"{mean(values):{form}}{spread}"]
    return cells


def _frequencies(results: Sequence[SeedResult]) -> str:
    rows = []
    for name in GROUPS:
        each = [one.groups[name].frequencies[_PLOTTED] for one in results]
        rows.append([name, *(f"{mean(values):.3f}" for values in zip(*each, strict=True))])
    return table(["in common", *map(str, range(_PLOTTED + 1))], rows)


def _claims(found: Sequence[Claim]) -> str:
    rows = [
        (
            one.title,
            f"{one.paper:+.4g}",
            f"{one.mean:+.4f}",
            f"{2 * max(each.standard_error for each in one.ours):.4f}",
            one.verdict,
        )
        for one in found
    ]
    return table(("claim", "paper", "ours", "2 SE", "direction"), rows)


def _apart(found: Sequence[Claim], results: Sequence[SeedResult]) -> Iterator[str]:
    """Where directions are not the paper's, and why as far as the maps show it."""
    by_reason: dict[str, list[str]] = {}
    for one in found:
        if one.verdict != "as in the paper":
            by_reason.setdefault(_reason(one, results), []).append(f"{one.title}: {one.verdict}")
    if not by_reason:
        yield "Every direction is the paper's."
        return
    yield "Directions that are not the paper's:"
    for reason, titles in by_reason.items():
        yield from (f"- {title}" for title in titles)
        yield f"  {reason}"
    if any(not one.stopped_early and one.best_epoch == len(one.epochs) for one in results):
        yield "The loss still fell when training ended: more --epochs may change directions."


def _reason(claim: Claim, results: Sequence[SeedResult]) -> str:
    if claim.verdict == "not to be told from chance":
        if len({one.mean > 0 for one in claim.ours}) > 1:
            return "Seeds point both ways."
        return "The difference is within two standard errors."
    normal, novel = (mean([one.groups[name].through_network.mean for one in results]) for name in GROUPS)
    added = f"at least {normal:.3f} of the residual for normal digits and {novel:.3f} for novel ones"
    if max(normal, novel) < _NEXT_TO_NOTHING:
        return (
            f"The network adds next to nothing to the gradient, {added}: a saliency without it is the root of the error. "
            "It has learnt too little to tell."
        )
    if claim.kind == "squared saliency":
        return (
            f"The network adds to the gradient, {added}; the squared saliency would be the error if it added nothing, and "
            "squares of what it adds differ more than what it adds."
        )
    if novel < normal:
        return f"Maps differ by what the network adds to the gradient, {added}: less where they agree more."
    return (
        f"Maps differ by what the network adds to the gradient, {added}. So much alone would make the paper's direction; "
        "where in the image it is added must make the other."
    )
