"""`bench web` as a whole: variants compared on strips that are fitted, then every model on strips that are not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from flawline.benchmarks.environment import Environment
from flawline.benchmarks.record import result
from flawline.benchmarks.web.aitex import BAD_PIXELS, FIT_GOOD, Roll, folds, read_roll, validation
from flawline.benchmarks.web.auroc import Estimate, Wins, estimate
from flawline.benchmarks.web.bench import Bench
from flawline.benchmarks.web.choice import Choice, Variant, choose, without_one
from flawline.benchmarks.web.features import Conditions, RollFeatures, collect
from flawline.export.features import Backbone
from flawline.export.options import FitOptions, WebOptions

Say = Callable[[str], object]

_DRAWS_SEED = 0
MARGIN_PX = WebOptions().margin_px or 0


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is asked of `bench web`.

    Attributes:
        rolls: Numbers of the rolls.
        dimensions: Channels d of an embedding; variants are compared at the first.
        components: Gaussians of the web; variants are compared with the first.
        precisions: Of the network; variants are compared in fp32.
        seeds: Of projection and mixture.
        choose: Whether to compare variants.
        tile_px: Height and width of a tile, camera pixels.
        map_stride: Pixels of the network's input per position of the map.
        smoothing_px: Of the map, pixels of the network's input.
        smoothings_px: Others to choose from.
        margin_px: Masked inside the web's edges, camera pixels.
        margins_px: Others to choose from.
        shrinks: Resolutions to choose from: how many times smaller than the camera's.
        shadings_px: Shadings to choose from.
        draws: Of the bootstrap.
        threads: Threads that compute.
    """

    rolls: tuple[str, ...] = ("02", "00")
    dimensions: tuple[int, ...] = (100, 32)
    components: tuple[int, ...] = (1, 8)
    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32",)
    seeds: int = 4
    choose: bool = True
    tile_px: int = 256
    map_stride: int = 8
    smoothing_px: float = FitOptions.smoothing_px
    smoothings_px: tuple[float, ...] = (0.0, 4.0)
    margin_px: int = MARGIN_PX
    margins_px: tuple[int, ...] = (128,)
    shrinks: tuple[int, ...] = (2,)
    shadings_px: tuple[int, ...] = (256,)
    draws: int = 2000
    threads: int = 1


@dataclass(frozen=True)
class Row:
    """A model on strips that it was not fitted on.

    Attributes:
        variant: `default`, or `chosen` in each fold.
        precision: Of the network.
        dimension: Channels d.
        components: Gaussians K.
        auroc: Of the tiles.
    """

    variant: str
    precision: str
    dimension: int
    components: int
    auroc: Estimate


@dataclass(frozen=True)
class RollResult:
    """What was measured on a roll.

    Attributes:
        roll: Its number.
        strips: Good and defective ones.
        tiles: Good and bad ones in the test of each fold, before those outside the web are left out.
        choices: Of each fold; none if there was nothing to choose.
        rows: Of the table.
    """

    roll: str
    strips: tuple[int, int]
    tiles: tuple[tuple[int, int], ...]
    choices: tuple[Choice, ...]
    rows: tuple[Row, ...]


def run(study: Study, data: Path, backbone: Backbone, say: Say) -> Iterator[RollResult]:
    """Measures roll after roll.

    Raises:
        InputError: Data or options are not what they must be.
    """
    for roll in [read_roll(data, name) for name in study.rolls]:
        with TemporaryDirectory(prefix="flawline-web-") as folder:
            features = partial(_collect, study, backbone, roll, Path(folder))
            yield _measure(study, Bench(roll, features, study.tile_px, study.threads), backbone.graph.layers, say)


def _collect(study: Study, backbone: Backbone, roll: Roll, folder: Path, conditions: Conditions) -> RollFeatures:
    own = folder / f"{conditions.shrink}-{conditions.shading_px}-{conditions.precision}"
    own.mkdir()
    return collect(backbone, roll, conditions, own, map_stride=study.map_stride, threads=study.threads)


def _measure(study: Study, bench: Bench, layers: Sequence[str], say: Say) -> RollResult:
    roll, every = bench.roll, tuple(range(len(layers)))
    default = Variant(study.smoothing_px, study.margin_px, Conditions(), every)
    both = folds(roll)
    rows = _rows(study, bench, "default", [default] * len(both), say)
    choices: tuple[Choice, ...] = ()
    if study.choose:
        choices = tuple(_choose(study, bench, number, default, say) for number in range(len(both)))
        rows += _rows(study, bench, "chosen", [choice.variant for choice in choices], say)
    tiles = []
    for fold in both:
        flaws = np.concatenate([bench.flaws[strip].ravel() for strip in fold.test])
        tiles.append((int((flaws == 0).sum()), int((flaws >= BAD_PIXELS).sum())))
    return RollResult(roll.name, (roll.good, len(roll.strips) - roll.good), tuple(tiles), choices, tuple(rows))


def _rows(study: Study, bench: Bench, name: str, variants: Sequence[Variant], say: Say) -> list[Row]:
    """A row for each precision, dimension and number of components; the variants are those of the folds."""
    rows = []
    for precision in study.precisions:
        converted = [replace(one, conditions=replace(one.conditions, precision=precision)) for one in variants]
        for dimension in study.dimensions:
            for components, auroc in _estimates(study, bench, converted, dimension).items():
                rows.append(Row(name, precision, dimension, components, auroc))
                say(f"roll {bench.roll.name}, {name}, {precision}, d = {dimension}, K = {components}: {auroc}")
    return rows


def _estimates(study: Study, bench: Bench, variants: Sequence[Variant], dimension: int) -> dict[int, Estimate]:
    """For each number of components, over all seeds and both folds."""
    found: dict[int, list[list[Wins]]] = {components: [] for components in study.components}
    for seed in range(study.seeds):
        for components, seeds in found.items():
            seeds.append(
                [
                    bench.test(variant, fold, dimension=dimension, components=components, seed=seed)
                    for variant, fold in zip(variants, folds(bench.roll), strict=True)
                ]
            )
    return {components: estimate(seeds, study.draws, _DRAWS_SEED) for components, seeds in found.items()}


def _choose(study: Study, bench: Bench, number: int, start: Variant, say: Say) -> Choice:
    halves = validation(bench.roll, folds(bench.roll)[number])

    def measure(variant: Variant) -> float:
        dimension, components = study.dimensions[0], study.components[0]
        tests = [bench.test(variant, half, dimension=dimension, components=components, seed=0) for half in halves]
        auroc = float(np.mean([one.auroc(np.ones((1, len(one.bad)))) for one in tests]))
        say(f"roll {bench.roll.name}, fold {number}, {variant}: validation AUROC {auroc:.3f}")
        return auroc

    others: dict[str, Sequence[Any]] = {
        "smoothing_px": study.smoothings_px,
        "margin_px": study.margins_px,
        "conditions": [Conditions(shrink=one) for one in study.shrinks]
        + [Conditions(shading_px=one) for one in study.shadings_px],
        "layers": without_one(len(start.layers)),
    }
    return choose(start, others, measure)


def as_json(
    study: Study, backbone: Backbone, results: Sequence[RollResult], environment: Environment
) -> dict[str, Any]:
    """Everything, for a file."""
    meaning = {
        "auroc": "area under the ROC over tiles, mean over seeds and folds; score = maximum of the smoothed map on the web",
        "low, high": "95 % bootstrap interval over the strips that are tested, mean over seeds in each draw",
        "tiles": f"good tiles have no flawed pixel, bad ones {BAD_PIXELS} or more; others are left out; per fold, good and bad",
        "choices": "of each fold: variants tried one part at a time, with their AUROC on strips that the fold fits, mean of two "
        "halves, first dimension and number of components, seed 0; then the best",
    }
    settings = asdict(study) | {
        "network": backbone.name,
        "weights": backbone.weights.origin,
        "layers": backbone.graph.layers,
        "fitted_good_strips": FIT_GOOD,
        "projection": "orthogonal",
    }
    found = {
        one.roll: {
            "strips": one.strips,
            "tiles": one.tiles,
            "choices": [
                {
                    "tried": [
                        asdict(tried.variant) | {"part": tried.part, "auroc": tried.auroc} for tried in choice.tried
                    ],
                    "chosen": asdict(choice.variant),
                }
                for choice in one.choices
            ],
            "rows": [asdict(row) for row in one.rows],
        }
        for one in results
    }
    return result("web", environment, settings=settings, meaning=meaning, results=found)
