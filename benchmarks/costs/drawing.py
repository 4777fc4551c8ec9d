"""The plots of `flawline bench latency` over several dimensions."""

from collections.abc import Sequence
from pathlib import Path

from flawline.benchmarks import plots
from flawline.benchmarks.costs.dimensions import Cost
from flawline.benchmarks.costs.stages import STAGES
from flawline.benchmarks.costs.subject import Subject
from flawline.runtime.files import make_folder


def draw(costs: Sequence[Cost], subject: Subject, folder: Path) -> list[Path]:
    """Draws where the time goes and, with labelled images, what it is worth.

    Args:
        costs: Of all dimensions, precisions, engines and numbers of threads.
        subject: What was measured.
        folder: For the PNG files; made if it is not there.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: A file cannot be written.
    """
    make_folder(folder)
    network = subject.bundle.manifest.network.name
    drawn = []
    for threads in dict.fromkeys(cost.latency.threads for cost in costs):
        lines = {
            name: [cost for cost in costs if (cost.latency.threads, cost.latency.name) == (threads, name)]
            for name in dict.fromkeys(cost.latency.name for cost in costs)
        }
        for name, line in lines.items():
            drawn.append(folder / f"stages-{name.replace(' ', '-')}-threads-{threads}.png")
            plots.time_by_stage(
                drawn[-1],
                [f"d = {cost.latency.setup.dimension}" for cost in line],
                {stage: [cost.latency.stages[stage].p50_ns / 1e6 for cost in line] for stage in STAGES},
                title=f"{network}, {name}, threads: {threads}",
            )
        if subject.data is not None:
            drawn.append(folder / f"accuracy-against-time-threads-{threads}.png")
            plots.accuracy_against_time(
                drawn[-1],
                [_curve(name, line) for name, line in lines.items()],
                [[str(cost.latency.setup.dimension) for cost in line] for line in lines.values()],
                title=f"{subject.data}, {network}, threads: {threads}; points are d",
                metric="image AUROC",
            )
    return drawn


def _curve(name: str, line: Sequence[Cost]) -> plots.Curve:
    known = [(cost.latency.end_to_end.p50_ns / 1e6, cost.image_auroc) for cost in line if cost.image_auroc is not None]
    return plots.Curve(name, [time for time, _ in known], [auroc for _, auroc in known])
