"""What `bench jl` prints."""

from collections.abc import Iterator, Sequence

from flawline.benchmarks.jl import comparison
from flawline.benchmarks.jl.comparison import Policy, Spread
from flawline.benchmarks.jl.cost import Cost
from flawline.benchmarks.jl.headline import CLAIMED_FASTER, CLAIMED_SMALLER, Headline
from flawline.benchmarks.jl.study import LABELS, Outcome
from flawline.benchmarks.tables import table
from flawline.benchmarks.timing import Timing


def describe(outcome: Outcome) -> str:
    """Tables of accuracy and cost, and the sentences that follow from the intervals."""
    facts = outcome.facts
    lines = [
        f"{facts['dataset']}: {facts['fit_images']} good images fitted, {facts['test_images']} tested "
        f"({facts['test_defective']} defective)" + (f"; {outcome.terms}" if outcome.terms else ""),
        f"{facts['network']} ({facts['weights']}) at {facts['image_size_px']} px, depth {facts['depth']}, map "
        f"{facts['map_size'][0]} x {facts['map_size'][1]}, sigma {facts['sigma_map_px']:g} map px, "
        "one Gaussian per position",
    ]
    for metric in outcome.accuracy.measured:
        lines += ["", *_metric(outcome, metric)]
    if outcome.accuracy.empty_masks:
        lines.append(
            f"{outcome.accuracy.empty_masks} defective images have an empty mask: left out of the pixel metric"
        )
    if outcome.costs:
        lines += ["", *_costs(outcome.costs)]
    return "\n".join(lines) + "\n"


def describe_headline(found: Headline) -> str:
    """The headline case: measured ratios beside the claimed ones."""
    times = ("p50 ms", "p90 ms", "p99 ms", "max ms")
    height, width = found.map_size
    rows: list[tuple[object, ...]] = []
    for name, selection, jl in (
        ("frame, packed fp16 factor", found.selection_frame, found.jl_frame),
        ("network with projection", found.selection_network, found.jl_network),
        *((f"step, {form.name}", form.selection_step, form.jl_step) for form in found.forms),
    ):
        rows.append((f"{name}, selection 550", *selection.ms(), selection.runs))
        rows.append((f"{name}, JL 150", *jl.ms(), jl.runs))
    ratios = [
        (
            form.name,
            f"{form.faster_step:.1f}",
            f"{form.faster_frame:.1f}",
            f"{form.selection_bytes / 1e6:.1f}",
            f"{form.jl_bytes / 1e6:.1f}",
            f"{form.smaller:.1f}",
        )
        for form in found.forms
    ]
    ratio_heads = ("JL 150 against selection 550", "step x", "network + step x", "MB at 550", "MB at 150", "smaller x")
    return "\n".join(
        [
            f"Wide ResNet-50-2, {height} x {width} positions, threads: {found.threads}. Random weights and statistics: "
            "time and bytes only.",
            "",
            table(("case", *times, "runs"), rows),
            "",
            table(ratio_heads, ratios),
            "",
            f"bundle: {found.selection_bundle_bytes / 1e6:.1f} MB at 550, {found.jl_bundle_bytes / 1e6:.1f} MB at 150: "
            f"{found.selection_bundle_bytes / found.jl_bundle_bytes:.1f} times smaller, network included",
            f"claimed in the report: {CLAIMED_FASTER:g} times faster, {CLAIMED_SMALLER:g} times smaller",
            "",
        ]
    )


def timings(costs: Sequence[Cost]) -> dict[str, Timing]:
    """All timings by name, to look for unstable ones."""
    return {f"step at d = {one.case.dimension}": one.step for one in costs} | {
        f"frame at d = {one.case.dimension}": one.frame for one in costs
    }


def _metric(outcome: Outcome, metric: str) -> Iterator[str]:
    policies = outcome.accuracy.policies(metric, outcome.fixed_epsilons)
    seeds = outcome.study.seeds
    for policy in policies:
        over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
        yield f"{metric}, epsilon {policy.epsilon}: {over}"
        yield _by_dimension(outcome, policy)
        yield ""
    if any(comparison.differences(policy) for policy in policies):
        yield f"{metric}, JL less selection, paired by seed: mean [95 % t interval]"
        yield _differences(policies)
        yield ""
    yield f"{metric} by epsilon, mean over seeds"
    yield _by_epsilon(outcome, metric)
    yield ""
    yield from comparison.sentences(metric, policies)


def _by_dimension(outcome: Outcome, policy: Policy) -> str:
    spreads = {(one.kind, one.dimension): one for one in comparison.spreads(policy)}
    kinds = [kind for kind in outcome.study.kinds if any(key[0] == kind for key in spreads)]
    rows = [
        (dimension, *(_spread(spreads.get((kind, dimension))) for kind in kinds))
        for dimension in sorted({dimension for _, dimension in spreads})
    ]
    return table(("d", *(LABELS[kind] for kind in kinds)), rows)


def _spread(one: Spread | None) -> str:
    if one is None:
        return ""
    return f"{one.mean:.4f}" + ("" if one.std is None else f" ± {one.std:.4f}")


def _differences(policies: Sequence[Policy]) -> str:
    rows = [
        (
            f"{LABELS[one.kind]}, epsilon {one.epsilon}",
            one.dimension,
            f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]",
            one.winner or "",
        )
        for policy in policies
        for one in comparison.differences(policy)
    ]
    return table(("against selection", "d", "difference", "better"), rows)


def _by_epsilon(outcome: Outcome, metric: str) -> str:
    means: dict[tuple[str, int], dict[str, list[float]]] = {}
    for one in outcome.accuracy.measured[metric]:
        row = means.setdefault((one.case.kind, one.case.dimension), {})
        row.setdefault(str(one.epsilon), []).append(one.whole)
    names = [str(epsilon) for epsilon in outcome.study.epsilons]
    rows = [
        (LABELS[kind], dimension, *(f"{sum(row[name]) / len(row[name]):.4f}" for name in names))
        for (kind, dimension), row in means.items()
    ]
    return table(("projection", "d", *names), rows)


def _costs(costs: Sequence[Cost]) -> Iterator[str]:
    height, width = costs[0].map_size
    yield (
        f"cost at {height} x {width} positions, threads: {costs[0].threads}, packed fp16, random statistics; the kind "
        "of projection does not matter"
    )
    heads = ("d", "step p50 ms", "p90", "p99", "max", "frame p50 ms", "p90", "p99", "max", "factors MB", "bundle MB")
    rows = [
        (
            one.case.dimension,
            *one.step.ms(),
            *one.frame.ms(),
            f"{one.factor_bytes / 1e6:.2f}",
            f"{one.bundle_bytes / 1e6:.2f}",
        )
        for one in costs
    ]
    yield table(heads, rows)
