"""The report page of the demo: the verdict first, then what it rests on, then what it cost."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flawline.benchmarks import html, plots
from flawline.benchmarks.demo import Demo
from flawline.benchmarks.evaluation import Scored
from flawline.benchmarks.jl import comparison, study
from flawline.runtime.extras import LazyModule
from flawline.runtime.histogram import Percentiles
from flawline.runtime.images import read_image
from flawline.runtime.overlay import overlay
from flawline.runtime.regions import find_regions

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

SAMPLES = 4
_JPEG_QUALITY = 88
_GAP_PX = 6


def make(demo: Demo, plots_folder: Path, commands: Sequence[str]) -> str:
    """Makes the page.

    Args:
        demo: What the demo found out.
        plots_folder: Where plots are drawn; exists.
        commands: Command lines that do the same.

    Returns:
        HTML, complete in itself.
    """
    manifest = demo.bundle.padim
    subtitle = (
        f"{manifest.network.name}, {manifest.projection.kind} projection to {manifest.projection.dimension} "
        f"dimensions, fitted on {manifest.fit.images} good solar cells, {manifest.threshold.calibration_images} more "
        "for the threshold"
    )
    sections = [
        _verdict(demo),
        _accuracy(demo, plots_folder),
        _samples(demo),
        _stream(demo),
        _projection(demo, plots_folder),
        _cost(demo),
        html.section("Do it yourself", html.commands(commands)),
        _environment(demo),
    ]
    return html.page("Flawline: flaws in solar cells", subtitle, sections)


def _verdict(demo: Demo) -> str:
    found = demo.evaluation
    good = found.images - found.defective
    caught = found.defective - found.misses
    asked = demo.bundle.manifest.threshold.false_reject_rate
    timed = demo.latency[0]
    mix = f"{timed.rejected_frames} of {timed.end_to_end.runs} frames rejected"
    return html.section(
        "Verdict",
        html.tiles(
            [
                html.Tile(f"{found.image_auroc:.3f}", "image AUROC"),
                html.Tile(f"{caught} of {found.defective}", f"flaws caught ({caught / found.defective:.0%})"),
                html.Tile(
                    f"{found.false_rejects} of {good}",
                    f"good cells rejected ({found.false_rejects / good:.1%}; at most {asked:.0%} was asked for)",
                ),
                html.Tile(f"{timed.end_to_end.p50_ns / 1e6:.1f} ms", f"per frame, median, one thread; {mix}"),
                html.Tile(f"{demo.bundle.total_bytes / 1e6:.1f} MB", "bundle: all that goes to the device"),
                html.Tile(f"{demo.peak_memory_bytes / 1e6:.0f} MB", "peak memory of scoring"),
            ]
        ),
        html.paragraph(
            f"Measured on {found.images} cells that the detector had not seen: {good} functional and {found.defective} "
            f"surely defective ones. No defective cell was used to fit it. Images: ELPV data set, {demo.terms}.",
            soft=True,
        ),
    )


def _accuracy(demo: Demo, folder: Path) -> str:
    found = demo.evaluation
    defective = np.array([one.item.is_defective for one in demo.scored])
    scores = np.array([one.score for one in demo.scored])
    title = "held-out solar cells"
    plots.roc(folder / "roc.png", defective, scores, title=title, auroc=found.image_auroc)
    by_label = {"functional": scores[~defective], "defective": scores[defective]}
    plots.score_histogram(folder / "scores.png", by_label, found.threshold, title=title)
    rows = [
        (kind.kind, kind.images, kind.rejected, f"{kind.rejected / kind.images:.1%}", f"{kind.median_score:.2f}")
        for kind in found.kinds
    ]
    return html.section(
        "Accuracy",
        html.paragraph(f"Image AUROC {found.image_auroc:.4f}, average precision {found.average_precision:.4f}."),
        html.table(("kind", "cells", "rejected", "share", "median score"), rows),
        html.pictures(
            [
                html.Picture.read(folder / "roc.png", "Share of flaws caught against share of good cells rejected"),
                html.Picture.read(folder / "scores.png", "Anomaly scores by label, with the bundle's threshold"),
            ]
        ),
    )


def _samples(demo: Demo) -> str:
    groups: list[tuple[str, Callable[[Scored], bool]]] = [
        ("Good, passed", lambda one: not one.item.is_defective and not one.rejected),
        ("Defective, caught", lambda one: one.item.is_defective and one.rejected),
        ("Defective, missed", lambda one: one.item.is_defective and not one.rejected),
        ("Good, falsely rejected", lambda one: not one.item.is_defective and one.rejected),
    ]
    parts = [
        html.paragraph(
            "Left the cell, right its anomaly map: the warmer, the farther from normal; boxes are regions above the "
            "threshold. Cells are taken evenly over the range of scores of their group."
        )
    ]
    for title, belongs in groups:
        group = sorted((one for one in demo.scored if belongs(one)), key=lambda one: one.score)
        parts.append(html.subheading(f"{title} ({len(group)})"))
        shown = [group[i] for i in sorted({round(x) for x in np.linspace(0, len(group) - 1, SAMPLES)})] if group else []
        parts.append(html.pictures([_shot(one, demo.evaluation.threshold) for one in shown], small=True))
    return html.section("What it saw", *parts)


def _shot(one: Scored, threshold: float) -> html.Picture:
    frame = read_image(one.item.path)
    regions = find_regions(one.map, threshold, one.size) if one.rejected else []
    painted = overlay(frame, one.map, regions, threshold)
    plain = np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame
    gap = np.full((len(frame), _GAP_PX, 3), 255, np.uint8)
    picture = np.hstack([plain, gap, painted])
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    caption = f"{one.item.path.name}: score {one.score:.2f}, p = {one.p_value:.2g}"
    return html.Picture(data.tobytes(), caption, f"{one.item.kind} cell and its anomaly map, {caption}")


def _stream(demo: Demo) -> str:
    streamed, summary = demo.streamed, demo.streamed.summary
    kinds = streamed.kinds
    lost = sum(summary.lines_lost.values())
    times = {"line to verdict": summary.latency_ms, **summary.stages_ms}
    held = "" if summary.line_rate_held is None else f", {summary.line_rate_held:.0f} held"
    return html.section(
        "On the line",
        html.paragraph(
            f"{len(kinds)} held-out cells ({kinds.count('good')} functional, {len(kinds) - kinds.count('good')} "
            "defective) laid one behind the other and replayed as a line camera would send them: "
            f"{streamed.line_rate:.0f} lines per second{held}, "
            f"{streamed.line_rate / demo.scored[0].size[0]:.0f} cells per second."
        ),
        html.tiles(
            [
                html.Tile(f"{summary.frames}", "frames scored"),
                html.Tile(f"{len(streamed.rejected)}", "rejected"),
                html.Tile(f"{streamed.misses}", "flaws missed", "bad" if streamed.misses else "good"),
                html.Tile(f"{streamed.false_rejects}", "false rejects", "bad" if streamed.false_rejects else "good"),
                html.Tile(f"{lost}", "lines lost", "bad" if lost else "good"),
            ]
        ),
        html.table(
            ("milliseconds", "p50", "p90", "p99", "max"),
            [(name, *_percentiles(one)) for name, one in times.items() if one is not None],
            parts=summary.stages_ms.keys(),
        ),
        html.paragraph(
            "From the arrival of a frame's last line to its verdict; each defect is a line of stream.jsonl.", soft=True
        ),
    )


def _percentiles(one: Percentiles) -> tuple[str, str, str, str]:
    return f"{one.p50:.2f}", f"{one.p90:.2f}", f"{one.p99:.2f}", f"{one.max:.2f}"


def _projection(demo: Demo, folder: Path) -> str:
    outcome = demo.jl
    policies = outcome.accuracy.policies("image AUROC", [])
    facts = outcome.facts
    captions = {
        "image-auroc-against-dimension.png": "Image AUROC by projected dimension; bars are the standard deviation over "
        "seeds. JL Gaussian and JL orthogonal span the same space and are nearly one curve",
        "cost-against-dimension.png": "Median latency, one thread, and bytes of the factors by projected dimension",
    }
    return html.section(
        "What the projection does",
        html.paragraph(
            f"{facts['network']} gives {facts['depth']} channels. A Johnson-Lindenstrauss projection mixes all of them "
            "into a few; random selection keeps a few and drops the rest. A short run on these cells, "
            f"{outcome.study.seeds} seeds, {facts['map_size'][0]} x {facts['map_size'][1]} map; on other data it may "
            "come out differently."
        ),
        *(html.paragraph(sentence) for sentence in comparison.sentences("image AUROC", policies)),
        html.pictures([html.Picture.read(path, captions[path.name]) for path in study.draw(outcome, folder)]),
    )


def _cost(demo: Demo) -> str:
    manifest = demo.bundle.padim
    positions, dimension = manifest.positions, manifest.projection.dimension
    factors = demo.bundle.statistics["factors"].nbytes
    first = demo.latency[0]
    timings = first.stages | {"outside the network": first.outside_network, "end to end": first.end_to_end}
    kernel = first.stages["kernel"].p50_ns
    doubts = [*demo.environment.warnings, *(f"{name}: {one.unstable}" for name, one in timings.items() if one.unstable)]
    return html.section(
        "What it costs",
        html.table(
            ("milliseconds, one thread", "p50", "p90", "p99", "max", "runs"),
            [(name, *timing.ms(), timing.runs) for name, timing in timings.items()],
        ),
        html.paragraph(
            f"Cells drawn from the test set, in turn: {first.rejected_frames} of {first.end_to_end.runs} frames "
            "rejected. Only a rejected one is searched for regions.",
            soft=True,
        ),
        *(html.paragraph(f"Times may be unstable: {reason}.") for reason in doubts),
        html.paragraph(
            f"The kernel reads {factors / 1e6:.2f} MB of factors per frame; reading them once takes "
            f"{demo.floor.floor_ns / 1e6:.3f} ms at the {demo.floor.bytes_per_second / 1e9:.0f} GB/s measured in the "
            f"same run, and the whole kernel stage, with upsampling and smoothing, {kernel / demo.floor.floor_ns:.1f} "
            "times that."
        ),
        html.table(
            ("megabytes (10^6 bytes)", ""),
            [
                ("bundle", f"{demo.bundle.total_bytes / 1e6:.2f}"),
                ("of which whitening factors", f"{factors / 1e6:.2f}"),
                ("the same as full fp32 inverses", f"{positions * dimension**2 * 4 / 1e6:.2f}"),
                ("peak memory of flawline score", f"{demo.peak_memory_bytes / 1e6:.0f}"),
            ],
        ),
    )


def _environment(demo: Demo) -> str:
    environment = demo.environment
    rows = [
        ("processor", f"{environment.cpu} ({environment.machine}), {environment.cores} cores"),
        ("caches", ", ".join(f"{level} {size / 2**20:.3g} MiB" for level, size in environment.caches_bytes.items())),
        ("memory", f"{environment.memory_bytes / 2**30:.1f} GiB"),
        ("load before the run", f"{environment.load_1min:.2f}"),
        ("system", environment.system),
        ("kernels", ", ".join(environment.kernels)),
        ("flawline", environment.flawline + (f", commit {environment.commit}" if environment.commit else "")),
        ("libraries", ", ".join(f"{name} {version}" for name, version in environment.libraries.items())),
    ]
    return html.section("Measured on", html.facts(rows))
