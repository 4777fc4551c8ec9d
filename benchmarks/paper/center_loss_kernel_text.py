"""What `bench paper center-loss --kernel` prints."""

from collections.abc import Iterator, Sequence

from flawline.benchmarks.paper.center_loss_kernel import BATCHES, Cost, KernelStudy
from flawline.benchmarks.paper.center_loss_projection import Accuracy
from flawline.benchmarks.record import unstable
from flawline.benchmarks.tables import table


def describe(study: KernelStudy, costs: Sequence[Cost], accuracies: Sequence[Accuracy], threads: int) -> str:
    """The tables of times and of areas, with a final newline."""
    return "\n".join((*_times(study, costs, threads), "", *_areas(study, accuracies))) + "\n"


def _times(study: KernelStudy, costs: Sequence[Cost], threads: int) -> Iterator[str]:
    yield (
        f"Mahalanobis distances of an image to {study.classes} classes, fp16 factors, threads {threads}: synthetic Gaussians, whose "
        "covariances are random and well conditioned"
    )
    yield (
        "time of an image (median), the projection included; bandwidth: time of one plain read of the factors over that of "
        "the call"
    )
    rows = []
    for one in costs:
        row = [
            f"{one.dimension}" + ("" if one.dimension == study.dimension else " (JL)"),
            f"{one.factor_bytes / 1e6:.1f}",
            f"{one.factor_bytes / one.read.p50_ns:.1f}",
        ]
        for batch in BATCHES:
            row += [f"{one.image_ns[batch].p50_ns / batch / 1e6:.3f}", f"{one.bandwidth_share(batch):.2f}"]
        rows.append(row)
    each = [word for batch in BATCHES for word in (f"batch {batch}, ms", "bandwidth")]
    yield table(("features", "factors, MB", "read, GB/s", *each), rows)
    yield from unstable(
        {f"{one.dimension} features, batch {batch}": timing for one in costs for batch, timing in one.image_ns.items()}
    )


def _areas(study: KernelStudy, accuracies: Sequence[Accuracy]) -> Iterator[str]:
    yield (
        f"AUROC on deep features of EfficientNet-Lite0 (ImageNet weights, images of {study.side_px} px), at most {study.images} "
        "images of each class to fit to"
    )
    names = list(dict.fromkeys(one.experiment for one in accuracies))
    dimensions = list(dict.fromkeys(one.dimension for one in accuracies))
    found = {(one.experiment, one.dimension): one for one in accuracies}
    rows = []
    for name in names:
        whole = found[name, dimensions[0]]
        rows.append(
            [name, f"{whole.normal}, {whole.anomalous}", *(f"{found[name, one].auroc:.4f}" for one in dimensions)]
        )
    heads = [f"{one}" if not found[names[0], one].projected else f"{one} (JL)" for one in dimensions]
    yield table(("normal against anomalous", "tested", *heads), rows)
