"""`bench jl` as a whole: accuracy and cost of projections on one set of images."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flawline.benchmarks import plots
from flawline.benchmarks.datasets import open_dataset
from flawline.benchmarks.environment import Environment
from flawline.benchmarks.jl import accuracy, comparison, cost
from flawline.benchmarks.jl.accuracy import Accuracy
from flawline.benchmarks.jl.cost import Cost
from flawline.benchmarks.jl.features import collect_features
from flawline.benchmarks.jl.sweep import DEFAULT_EPSILONS, Case, Epsilon, cases
from flawline.benchmarks.record import result
from flawline.benchmarks.timing import Timing
from flawline.calibration.projections import Kind
from flawline.export.features import open_backbone
from flawline.export.fit import FitOptions
from flawline.runtime.images import read_image

SPLIT_SEED = 0
_GIVEN_BY_PATH = ("data", "backbone", "weights")
COST_FRAMES = 32
LABELS = {
    "select": "random selection",
    "gaussian": "JL, Gaussian",
    "orthogonal": "JL, orthogonal",
    "sparse": "JL, sparse signs",
    "none": "no projection",
}
MEANING = {
    "image AUROC": "area under the ROC over test images; score = maximum of the smoothed anomaly map",
    "pixel AUROC": "area under the ROC over the cells of a grid laid over every test image; images with an empty mask "
    "left out",
    "epsilon": "added to the diagonal of every covariance, in mean feature variances unless absolute",
    comparison.VALIDATED: "epsilon per kind and dimension is the best (mean over seeds) on one half of the labelled "
    "test images, measured on the other half; both ways, averaged",
    "differences": "JL less selection at equal dimension and seed; 95 % Student t interval over seeds, which vary the "
    "projection and not the images",
    "step": "feature maps to anomaly map and score, statistics random, factors fp16",
    "frame": "frame in memory to score: resize, network, step",
    "factor_bytes": "packed fp16 whitening factors",
    "bundle_bytes": "graph, factors, means and projection; without golden frames and manifest",
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is asked of `bench jl`.

    Attributes:
        data: Name of a data set or its folder.
        backbone: Name of a network, or an ONNX file.
        layers: Feature layers; the network's default ones if None.
        weights: Weights file, `random`, or None for the installed default.
        image_size: Height and width of the network's input, px; the network's default if None.
        mean: In units of 0 to 255, for an ONNX file; ImageNet's if None.
        std: Likewise.
        map_stride: Input pixels per position of the map on which accuracy is measured.
        cost_map_stride: Likewise for time and bytes; the network's default if None.
        dimensions: Projected dimensions; those above the depth of the features are left out.
        kinds: Kinds of projection.
        seeds: Number of seeds, 0, 1, ...
        epsilons: Regularisations.
        fit_images: Good images to fit on; None for 300, or all of a training folder.
        smoothing_px: Standard deviation of the map's smoothing, px of the network's input.
        pixel_grid: Cells per side of the grid for pixel AUROC; 0 for none.
        threads: Threads that compute; accuracy does not depend on them.
        cost_threads: Threads of engine and kernel while timing; as many as `threads` if None.
        rounds: Timed calls per dimension; 0 for no timing.
    """

    data: str
    backbone: str = "efficientnet-lite0"
    layers: tuple[str, ...] | None = None
    weights: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    map_stride: int = 16
    cost_map_stride: int | None = None
    dimensions: tuple[int, ...] = (8, 16, 32, 64, 100, 150, 200, 300)
    kinds: tuple[Kind, ...] = ("select", "gaussian", "orthogonal")
    seeds: int = 6
    epsilons: tuple[Epsilon, ...] = DEFAULT_EPSILONS
    fit_images: int | None = None
    smoothing_px: float = FitOptions().smoothing_px
    pixel_grid: int = 64
    threads: int = 2
    cost_threads: int | None = None
    rounds: int = 100


def quick(asked: Study) -> Study:
    """The same with fewer dimensions and timed calls: a minute on two cores."""
    return replace(asked, dimensions=(8, 16, 32, 64, 100), rounds=30)


@dataclass(frozen=True)
class Outcome:
    """What came of a study.

    Attributes:
        study: What was asked.
        terms: Licence of the images, if known.
        facts: Network, depth, map, numbers of images.
        accuracy: Every projection at every epsilon.
        costs: Time and bytes by dimension; empty if not asked for.
    """

    study: Study
    terms: str | None
    facts: dict[str, Any]
    accuracy: Accuracy
    costs: list[Cost]

    @property
    def fixed_epsilons(self) -> list[Epsilon]:
        """The fixed choices that are compared beside validation: Flawline's default and the papers'."""
        return [Epsilon(0.01), Epsilon(0.01, relative=False)]


def run(study: Study, say: Callable[[str], None]) -> Outcome:
    """Runs a study.

    Args:
        study: What is asked.
        say: Takes a line of what is being done.

    Raises:
        InputError: Data, network or options are not what they must be.
        ResourceError: Memory would not suffice.
    """
    dataset = open_dataset(study.data)
    split = dataset.split(study.fit_images, 0, SPLIT_SEED)
    backbone = open_backbone(
        study.backbone,
        layers=study.layers,
        weights=study.weights,
        image_size=study.image_size,
        mean=study.mean,
        std=study.std,
        seed=0,
    )
    say(f"{dataset.name}: {len(split.fit)} good images to fit, {len(split.test)} to test")
    features = collect_features(backbone, split.fit, split.test, map_stride=study.map_stride, threads=study.threads)
    chosen = cases(study.kinds, study.dimensions, range(study.seeds), features.depth)
    say(f"{len(chosen)} projections of {features.depth} channels, {len(study.epsilons)} epsilons each")
    measured = accuracy.measure(
        features,
        chosen,
        study.epsilons,
        sigma=study.smoothing_px * features.map_size[1] / features.image_size_px,
        pixel_grid=study.pixel_grid,
        threads=study.threads,
    )
    facts = {
        "dataset": dataset.name,
        "fit_images": features.fit_images,
        "test_images": len(features.items),
        "test_defective": sum(item.is_defective for item in features.items),
        "network": features.network,
        "weights": features.weights,
        "image_size_px": features.image_size_px,
        "depth": features.depth,
        "map_size": list(features.map_size),
        "sigma_map_px": study.smoothing_px * features.map_size[1] / features.image_size_px,
    }
    depth, items = features.depth, features.items
    # Hundreds of megabytes that timing does not need.
    del features
    costs = []
    if study.rounds:
        say("timing each dimension")
        costs = cost.measure(
            backbone,
            [Case("gaussian", dimension, 0) for dimension in study.dimensions if dimension <= depth],
            [read_image(item.path) for item in items[:: max(1, len(items) // COST_FRAMES)]],
            map_stride=study.cost_map_stride,
            sigma_px=study.smoothing_px,
            threads=study.cost_threads or study.threads,
            rounds=study.rounds,
        )
    return Outcome(study, dataset.terms, facts, measured, costs)


def as_json(outcome: Outcome, environment: Environment, null: Timing) -> dict[str, Any]:
    """Everything that was measured, for a file."""
    return result(
        "jl",
        environment,
        # The facts name data, network and weights without the paths by which they were given.
        settings={name: value for name, value in asdict(outcome.study).items() if name not in _GIVEN_BY_PATH}
        | {"epsilons": [str(epsilon) for epsilon in outcome.study.epsilons], "split_seed": SPLIT_SEED}
        | outcome.facts,
        meaning=MEANING,
        null=null,
        results=accuracy.as_json(outcome.accuracy, outcome.fixed_epsilons)
        | {"cost": [asdict(one) for one in outcome.costs]},
    )


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """Draws accuracy and cost against dimension.

    Args:
        outcome: What came of a study.
        folder: Where the PNG files go; exists.

    Returns:
        The files.
    """
    facts = outcome.facts
    where = f"{facts['dataset']}, {facts['network']}, {facts['map_size'][0]} x {facts['map_size'][1]} map"
    drawn = []
    for metric in outcome.accuracy.measured:
        spreads = comparison.spreads(outcome.accuracy.policies(metric, [])[0])
        curves = []
        for kind in (kind for kind in outcome.study.kinds if kind != "none"):
            points = sorted((one for one in spreads if one.kind == kind), key=lambda one: one.dimension)
            curves.append(
                plots.Curve(
                    LABELS[kind],
                    [one.dimension for one in points],
                    [one.mean for one in points],
                    [one.std or 0.0 for one in points],
                )
            )
        everything = next((one.mean for one in spreads if one.kind == "none"), None)
        reference = None if everything is None else (f"all {facts['depth']} channels", everything)
        path = folder / f"{metric.replace(' ', '-').lower()}-against-dimension.png"
        plots.accuracy_against_dimension(
            path, curves, title=where, metric=f"{metric} (mean ± std over seeds)", reference=reference
        )
        drawn.append(path)
    if outcome.costs:
        drawn.append(_draw_cost(outcome, folder / "cost-against-dimension.png"))
    return drawn


def _draw_cost(outcome: Outcome, path: Path) -> Path:
    costs = outcome.costs
    x = [one.case.dimension for one in costs]
    height, width = costs[0].map_size
    plots.cost_against_dimension(
        path,
        [
            plots.Curve("Mahalanobis step", x, [one.step.p50_ns / 1e6 for one in costs]),
            plots.Curve("whole frame", x, [one.frame.p50_ns / 1e6 for one in costs]),
        ],
        [plots.Curve("packed fp16", x, [one.factor_bytes / 1e6 for one in costs])],
        title=f"{outcome.facts['network']}, {height} x {width} positions, threads: {costs[0].threads}",
    )
    return path
