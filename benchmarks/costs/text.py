"""The tables of `flawline bench latency`."""

from collections.abc import Iterator, Sequence

from flawline.benchmarks.costs.batches import Batch
from flawline.benchmarks.costs.dimensions import Cost, unbeaten
from flawline.benchmarks.costs.footprint import AutoPeak, BasisFloor, Floor, Footprint
from flawline.benchmarks.costs.stages import STAGES, Latency, Resident
from flawline.benchmarks.tables import table
from flawline.benchmarks.timing import Timing
from flawline.runtime.bundle import AnyManifest, ClassifierManifest, PadimManifest


def detector(manifest: AnyManifest, frames: int, *, dimension: bool) -> str:
    """One line on what is measured, with or without what depends on the dimension."""
    if isinstance(manifest, PadimManifest):
        what = f"map {manifest.map.height} x {manifest.map.width}, {manifest.gaussian.factors} factors"
        if dimension:
            what = f"d = {manifest.projection.dimension}, {what} ({manifest.gaussian.form})"
    elif isinstance(manifest, ClassifierManifest):
        what = f"{len(manifest.classifier.classes)} classes, {manifest.gaussian.factors} factors"
        if dimension:
            what = f"d = {manifest.projection.dimension}, {what} ({manifest.gaussian.form})"
    else:
        fact = manifest.reconstruction
        what = f"{fact.title}, map {fact.map}"
        if fact.map == "pse":
            what += f" of sigma {manifest.map.sigma:g} px"
    return (
        f"{manifest.network.name} at {manifest.input.height} x {manifest.input.width}, {what}, {frames} frames in turn"
        + (", random weights" if manifest.network.weights.random else "")
    )


def latencies(measured: Sequence[Latency]) -> Iterator[str]:
    """End to end with its tail, and the stages, of one number of threads."""
    yield f"threads: {measured[0].threads}; a frame, end to end"
    yield table(
        ("ms", "p50", "p90", "p99", "max", "p99/p50", "CPU", "rejected", "runs"),
        [
            (
                one.name,
                *one.end_to_end.ms(),
                f"{one.p99_over_p50:.2f}",
                f"{one.cpu_ns / 1e6:.3f}",
                one.rejected_frames,
                one.end_to_end.runs,
            )
            for one in measured
        ],
    )
    yield ""
    yield f"threads: {measured[0].threads}; its stages, p50"
    yield table(
        ("ms", *STAGES, "all but network"),
        [(one.name, *(_p50(one.stages[stage]) for stage in STAGES), _p50(one.outside_network)) for one in measured],
    )


def floors(found: Sequence[Floor], measured: Sequence[Latency]) -> Iterator[str]:
    """The kernel of each precision, at its fastest, against the least that memory allows."""
    for floor in found:
        kernel = _fastest("kernel", floor, measured)
        yield (
            f"kernel floor, {floor.precision}, threads: {floor.threads}: {floor.factor_bytes / 1e6:.2f} MB of factors at "
            f"{floor.bytes_per_second / 1e9:.1f} GB/s are {floor.floor_ns / 1e6:.3f} ms; the whole kernel stage takes "
            f"{kernel / floor.floor_ns:.2f} times that"
        )


def basis_floors(found: Sequence[BasisFloor], measured: Sequence[Latency]) -> Iterator[str]:
    """The network of principal components, at its fastest, against the least that memory allows."""
    for floor in found:
        network = _fastest("network", floor, measured)
        yield (
            f"network floor, {floor.precision}, threads: {floor.threads}: {floor.basis_bytes / 1e6:.2f} MB of principal components, "
            f"read twice at {floor.bytes_per_second / 1e9:.1f} GB/s, are {floor.floor_ns / 1e6:.3f} ms; the whole network stage takes "
            f"{network / floor.floor_ns:.2f} times that"
        )


def _fastest(stage: str, floor: Floor | BasisFloor, measured: Sequence[Latency]) -> float:
    """The smallest median of a stage, ns, of the floor's precision and threads."""
    return min(
        one.stages[stage].p50_ns
        for one in measured
        if (one.setup.precision, one.threads) == (floor.precision, floor.threads)
    )


def batches(found: Sequence[Batch]) -> Iterator[str]:
    """A frame alone and in a batch."""
    yield f"a frame alone and as one of {found[0].frames}, p50"
    yield table(
        ("ms", "threads", "kernel", "in batch", "times cheaper", "network", "in batch"),
        [
            (
                one.setup.name,
                one.threads,
                _p50(one.alone["kernel"]),
                _p50(one.batched["kernel"]),
                f"{one.kernel_times_cheaper:.2f}",
                _p50(one.alone["network"]),
                _p50(one.batched["network"]),
            )
            for one in found
        ],
    )


def footprints(found: Sequence[Footprint], automatic: Sequence[AutoPeak], manifest: AnyManifest) -> Iterator[str]:
    """Bytes and memory."""
    is_padim = isinstance(manifest, PadimManifest)
    yield table(
        ("MB", "bundle", "network", *(["factors"] if is_padim else []), "peak memory of `flawline score`"),
        [
            (
                one.setup.name,
                f"{one.bundle_bytes / 1e6:.1f}",
                f"{one.network_bytes / 1e6:.1f}",
                *([f"{one.factor_bytes / 1e6:.1f}"] if is_padim else []),
                f"{one.peak_memory_bytes / 1e6:.0f}",
            )
            for one in found
        ],
    )
    peaks = ", ".join(f"{one.precision} {one.peak_memory_bytes / 1e6:.0f}" for one in automatic)
    yield f"peak memory with --backend auto, of the largest process: {peaks} MB"
    if isinstance(manifest, PadimManifest):
        inverses = manifest.gaussian.count * manifest.gaussian.components * manifest.projection.dimension**2 * 4
        yield f"full fp32 inverses would take {inverses / 1e6:.1f} MB"


def resident(found: Sequence[Resident]) -> Iterator[str]:
    """Whether memory grows."""
    for one in found:
        yield (
            f"memory with all of them open, threads: {one.threads}: {one.settled_bytes / 1e6:.1f} MB after "
            f"{one.settled_rounds} frames of each, {one.end_bytes / 1e6:.1f} MB after {one.rounds} "
            f"({(one.end_bytes - one.settled_bytes) / 1e3:+.0f} kB)"
        )


def dimensions(costs: Sequence[Cost]) -> Iterator[str]:
    """Time by dimension of one number of threads: a table per precision and engine, and what is worth its time."""
    threads = costs[0].latency.threads
    known = [(cost, cost.image_auroc) for cost in costs if cost.image_auroc is not None]
    for name in dict.fromkeys(cost.latency.name for cost in costs):
        yield f"threads: {threads}, {name}; p50"
        heads = [
            "ms",
            "end to end",
            *STAGES,
            "factors MB",
            "form",
            *(["image AUROC", "unbeaten", "gain per ms"] if known else []),
        ]
        yield table(heads, [_row(cost) for cost in costs if cost.latency.name == name])
        yield ""
    if known:
        yield "gain per ms: image AUROC over that of the next faster unbeaten dimension, per ms that it takes more"
        front = unbeaten([(cost.latency.end_to_end.p50_ns, auroc) for cost, auroc in known])
        chosen = sorted((known[index] for index in front), key=lambda one: one[0].latency.end_to_end.p50_ns)
        yield "of all together, no other is faster and better than: " + "; ".join(
            f"d = {one.latency.setup.dimension} {one.latency.name} ({_p50(one.latency.end_to_end)} ms, {auroc:.4f})"
            for one, auroc in chosen
        )
        yield ""


def _row(cost: Cost) -> list[str]:
    latency = cost.latency
    row = [f"d = {latency.setup.dimension}", _p50(latency.end_to_end)]
    row += [_p50(latency.stages[stage]) for stage in STAGES]
    row += [f"{cost.factors.factor_bytes / 1e6:.2f}", cost.factors.form]
    if cost.image_auroc is not None:
        row += [f"{cost.image_auroc:.4f}", "*" if cost.unbeaten else ""]
        row += ["" if cost.gain_per_ms is None else f"{cost.gain_per_ms:+.4f}"]
    return row


def _p50(timing: Timing) -> str:
    return timing.ms()[0]
