"""What `flawline bench latency` measures, as lines to print and numbers to keep."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flawline.benchmarks.costs import batches, dimensions, footprint, stages, text
from flawline.benchmarks.costs.dimensions import Cost
from flawline.benchmarks.costs.footprint import AutoPeak, Factors
from flawline.benchmarks.costs.subject import Subject
from flawline.benchmarks.record import flat
from flawline.benchmarks.timing import Timing
from flawline.export.options import default_threads
from flawline.runtime.bundle import PadimManifest, ReconstructionManifest, read
from flawline.runtime.engines import is_on_gpu
from flawline.runtime.progress import progress

_FRAMES_PER_BATCH_ROUND = 4


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        lines: To print.
        results: For JSON.
        timings: By name: end to end, and of batches.
        costs: By dimension, if that was asked for.
    """

    lines: list[str]
    results: dict[str, Any]
    timings: dict[str, Timing]
    costs: Sequence[Cost] = ()


def everything(subject: Subject, *, thread_counts: Sequence[int], runs: int) -> Report:
    """Time by stage, batches, bytes and memory of detectors of one dimension."""
    # Floors are those of this machine's memory, which says nothing of a GPU's.
    on_cpu = [way for way in subject.ways if not is_on_gpu(way.setup.engine)]
    bundles = {way.setup.precision: read(way.bundle).select(way.setup.precision) for way in on_cpu}
    # First, since it is done soon and is what may fail.
    weighed = [
        footprint.footprint(way, subject.image) for way in progress(subject.ways, label="weighing", unit="detector")
    ]
    one_each = {way.setup.precision: way for way in subject.ways}
    automatic = [
        AutoPeak(precision, footprint.peak_memory_bytes(way, subject.image, backend="auto"))
        for precision, way in progress(one_each.items(), label="weighing with every engine", unit="precision")
    ]
    measured, residents, floors, basis_floors, batched = [], [], [], [], []
    for threads in thread_counts:
        found, resident = stages.measure(subject.ways, subject.frames, threads=threads, runs=runs)
        measured.append(found)
        residents.append(resident)
        for bundle in bundles.values():
            if isinstance(bundle.manifest, PadimManifest):
                floors.append(footprint.floor(bundle, threads=threads))
            elif isinstance(bundle.manifest, ReconstructionManifest) and bundle.manifest.reconstruction.kind == "pca":
                basis_floors.append(footprint.basis_floor(bundle.manifest, threads=threads))
        rounds = max(runs // _FRAMES_PER_BATCH_ROUND, 1)
        batched += [batches.measure(way, subject.frames, threads=threads, rounds=rounds) for way in subject.ways]
    latencies = [one for found in measured for one in found]
    lines = [line for found in measured for line in (*text.latencies(found), "")]
    lines += [*text.batches(batched), ""]
    bounded = [one for one in latencies if not is_on_gpu(one.setup.engine)]
    lines += [*text.floors(floors, bounded), *text.basis_floors(basis_floors, bounded)]
    lines += text.resident(residents)
    lines += ["", *text.footprints(weighed, automatic, subject.bundle.manifest)]
    results = {
        "latency": [flat(one, "setup") for one in latencies],
        "batches": [flat(one, "setup") for one in batched],
        "floor": [asdict(one) for one in floors],
        "basis_floor": [asdict(one) for one in basis_floors],
        "memory": [asdict(one) for one in residents],
        "footprints": [flat(one, "setup") for one in weighed],
        "auto_peaks": [asdict(one) for one in automatic],
    }
    timings = {f"{one.name}, threads {one.threads}": one.end_to_end for one in latencies}
    for batch in batched:
        timings |= batch.timings
    return Report(lines, results, timings)


def by_dimension(subject: Subject, *, thread_counts: Sequence[int], runs: int) -> Report:
    """Time by stage and dimension and, with labelled images, which dimension is worth its time."""
    aurocs = {
        way.setup: dimensions.image_auroc(way, subject.items, threads=default_threads())
        for way in subject.ways
        if subject.items
    }
    factors = {way.setup: Factors.of(read(way.bundle).select(way.setup.precision)) for way in subject.ways}
    lines: list[str] = []
    costs: list[Cost] = []
    for threads in thread_counts:
        found = dimensions.compare(
            subject.ways, subject.frames, factors=factors, image_aurocs=aurocs, threads=threads, runs=runs
        )
        lines += text.dimensions(found)
        costs += found
    results = [flat(one.latency, "setup") | _besides(one) for one in costs]
    timings = {
        f"{one.latency.name}, d = {one.latency.setup.dimension}, threads {one.latency.threads}": one.latency.end_to_end
        for one in costs
    }
    return Report(lines, {"dimensions": results}, timings, costs)


def _besides(cost: Cost) -> dict[str, Any]:
    return asdict(cost.factors) | {
        "image_auroc": cost.image_auroc,
        "unbeaten": cost.unbeaten,
        "gain_per_ms": cost.gain_per_ms,
    }
