"""The comparison as tables."""

from collections.abc import Iterator, Mapping, Sequence

from flawline.benchmarks.environment import Environment
from flawline.benchmarks.peers.cases import NULL, OURS, Failure
from flawline.benchmarks.peers.comparison import Measured
from flawline.benchmarks.peers.frames import Frames
from flawline.benchmarks.peers.ratios import Ratio, fastest
from flawline.benchmarks.peers.theirs import About
from flawline.benchmarks.tables import table

HEADS = ("", "p50 ms", "p99 ms", "CPU ms", "peak MB", "files MB", "AUROC", "scores")
RATIO_HEADS = ("peer / ours", "p50", "p99", "CPU", "memory", "files")


def parties(environment: Environment, about: Mapping[str, About]) -> Iterator[str]:
    """Who takes part, each with the versions of its own libraries.

    Args:
        environment: Ours.
        about: The peers, by name.
    """
    yield f"{OURS}: {_versions({OURS: environment.flawline} | environment.libraries)}"
    for name, peer in about.items():
        yield f"{name} ({peer.licence}): {_versions(peer.versions)}"
        yield from (f"  {note}" for note in peer.notes)


def lines(
    measured: Sequence[Measured], found: Sequence[Ratio], failures: Sequence[Failure], frames: Frames
) -> Iterator[str]:
    """What was measured, line by line.

    Args:
        measured: Every case with every number of threads.
        found: Ratios among them.
        failures: What could not be measured.
        frames: What was scored.
    """
    kinds = f"{int(frames.defects.sum())} of them defective" if frames.defects is not None else "without labels"
    yield f"{frames.fit_images} good frames of {frames.width} x {frames.height} px fitted, {frames.count} scored, {kinds}"
    for threads in sorted({one.threads for one in measured}):
        chosen = [one for one in measured if one.threads == threads]
        yield ""
        yield f"threads: {threads}; {chosen[0].latency.runs} timed frames each, in alternation"
        yield table(HEADS, [_row(one) for one in chosen])
        for one in chosen:
            if one.latency.unstable:
                yield f"* {_name(one)} may be unstable: {one.latency.unstable}"
        for ours in (one for one in chosen if one.case.party == OURS):
            yield from _ratios(ours, [one for one in found if one.threads == threads and one.ours == ours.case.name])
    if failures:
        yield ""
        yield "not measured"
        yield from (f"  {one.name}: {one.reason}" for one in failures)


def _versions(libraries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items())


def _row(one: Measured) -> tuple[str, ...]:
    costs = (
        _marked(_name(one), unstable=bool(one.latency.unstable)),
        *one.latency.ms()[::2],
        f"{one.cpu_ns / 1e6:.3f}",
        _mb(one.peak_memory_bytes),
    )
    if one.case.party == NULL:
        return (*costs, "", "", "")
    scores = f"{one.distinct_scores} of {one.frames}"
    if one.distinct_scores <= 1:
        scores += " CONSTANT"
    if one.not_finite:
        scores += f", {one.not_finite} NOT FINITE"
    return (
        *costs,
        _mb(one.case.deployed_bytes),
        "" if one.image_auroc is None else f"{one.image_auroc:.4f}",
        scores,
    )


def _ratios(ours: Measured, found: Sequence[Ratio]) -> Iterator[str]:
    if not found:
        return
    yield ""
    yield f"{ours.case.name}, threads: {ours.threads}; above 1 the peer takes more"
    yield table(
        RATIO_HEADS,
        [
            (
                _marked(one.peer, unstable=one.unstable),
                *(f"{value:.2f}" for value in (one.p50, one.p99, one.cpu, one.memory, one.files)),
            )
            for one in sorted(found, key=lambda one: one.p50)
        ],
    )
    for what, only_float in (("fp32", True), ("of any precision", False)):
        best = fastest(found, only_float=only_float)
        if best is not None:
            note = ", whose scores are all the same" if best.peer_is_constant else ""
            peer = _marked(best.peer, unstable=best.unstable)
            yield f"fastest peer {what}: {best.p50:.2f} times our p50 ({peer}{note})"


def _name(one: Measured) -> str:
    return "null case" if one.case.party == NULL else one.case.name


def _marked(name: str, *, unstable: bool) -> str:
    return f"{name} *" if unstable else name


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
