"""The tables of `flawline bench gpu`."""

import itertools
from collections.abc import Iterator, Sequence

from flawline.benchmarks.gpu import distances, frames, images
from flawline.benchmarks.tables import table
from flawline.runtime.gpu.pipeline import STAGES


def steps(measured: Sequence[distances.Measured]) -> Iterator[str]:
    """The Mahalanobis kernels."""
    heads = (
        "case",
        "MB",
        "p50 us",
        "p90",
        "GB/s",
        "of read",
        f"us for {distances.FRAMES_OF_A_BATCH}",
        "of one",
        "inside",
    )
    yield f"Mahalanobis step, {measured[0].positions} positions; models take turns"
    yield table(
        heads,
        [
            (
                f"d {one.dimension} {one.factors}",
                f"{one.bytes / 1e6:.1f}",
                f"{one.timings[distances.KERNEL].p50_ns / 1e3:.1f}",
                f"{one.timings[distances.KERNEL].p90_ns / 1e3:.1f}",
                f"{one.bytes_per_second / 1e9:.0f}",
                f"{one.share_of_read:.0%}",
                f"{one.timings[distances.BATCH].p50_ns / 1e3:.1f}",
                f"{one.cost_of_batch:.2f} x",
                f"{one.timings[distances.INSIDE].p50_ns / 1e3:.1f}" if distances.INSIDE in one.timings else "-",
            )
            for one in measured
        ],
    )
    yield (
        "MB: what one frame takes. of read: share of the bandwidth of the fastest read of the factors. of one: a batch over "
        "one frame. inside: us with the projection inside, from maps of 448 channels."
    )
    for one in measured:
        if not one.exceeds_cache:
            yield f"d {one.dimension} {one.factors}: memory allows only {one.copies} models, which the cache may hold"


def saving(selection: distances.Measured, jl: distances.Measured) -> str:
    """What the projection saves of the step."""
    times = selection.timings[distances.KERNEL].p50_ns / jl.timings[distances.KERNEL].p50_ns
    return (
        f"JL at {jl.dimension} against selection at {selection.dimension}, {jl.factors} factors: the step is {times:.2f} "
        f"times faster, factors {selection.factor_bytes / jl.factor_bytes:.2f} times smaller"
    )


def on_images(measured: Sequence[images.Measured]) -> Iterator[str]:
    """The kernels on images and maps."""
    yield "Images and maps; frames take turns"
    yield table(
        ("kernel", "MB", "p50 us", "p90", "GB/s", "read us", "times the read"),
        [
            (
                f"{one.name}, {one.what}",
                f"{one.bytes / 1e6:.2f}",
                f"{one.timings[images.KERNEL].p50_ns / 1e3:.1f}",
                f"{one.timings[images.KERNEL].p90_ns / 1e3:.1f}",
                f"{one.bytes_per_second / 1e9:.0f}",
                f"{one.timings[images.READ].p50_ns / 1e3:.1f}",
                f"{one.times_the_read:.2f}",
            )
            for one in measured
        ],
    )
    yield "MB: what is read and written of one frame. read: as many bytes, all of them read."
    for one in measured:
        if not one.exceeds_cache:
            yield f"{one.name}: {one.copies} frames are so little that the cache may hold them"


def whole_frames(measured: Sequence[frames.Measured]) -> Iterator[str]:
    """Frames, end to end, their stages, and what the projection saves of them."""
    yield "A frame, from uint8 in host memory to score and map there"
    yield table(
        ("ms", "p50", "p90", "p99", "max", *STAGES, "GPU MB"),
        [
            (
                frame_name(one),
                *one.end_to_end.ms(),
                *(f"{one.stages[stage].p50_ns / 1e6:.3f}" for stage in STAGES),
                f"{one.gpu_bytes / 1e6:.1f}",
            )
            for one in measured
        ],
    )
    for one in measured:
        if one.case.graph and one.graph_refused is not None:
            yield f"{frame_name(one)}: a graph was asked for and refused: {one.graph_refused}"
    for selection, jl in itertools.product(measured, repeat=2):
        ours, theirs = jl.case, selection.case
        alike = (ours.network, ours.factors, ours.graph) == (theirs.network, theirs.factors, theirs.graph)
        if alike and theirs.projection == "select" and ours.projection != "select":
            yield (
                f"{frame_name(selection)} against {ours.projection} {ours.dimension}: the frame is "
                f"{selection.end_to_end.p50_ns / jl.end_to_end.p50_ns:.2f} times faster, the memory "
                f"{selection.gpu_bytes / jl.gpu_bytes:.2f} times smaller"
            )


def frame_name(measured: frames.Measured) -> str:
    """What was measured."""
    case = measured.case
    graph = "graph" if measured.graph_refused is None else "no graph"
    return f"{case.network} ({measured.engine}), {case.projection} {case.dimension} {case.factors}, {graph}"
