"""What a dimension costs: time of the Mahalanobis step and of a whole frame, and bytes."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.jl.sweep import Case
from flawline.benchmarks.timing import Timing, alternate
from flawline.export.features import Backbone, Exported, export_features
from flawline.runtime.bundle import Input
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.kernels import Gaussians, MahalanobisMap, pack, packed_size
from flawline.runtime.memory import require
from flawline.runtime.precisions import ENGINES

Frame = NDArray[np.uint8]

_ENGINE_BYTES = 100 << 20


@dataclass(frozen=True)
class Cost:
    """Cost of one projection on one map.

    Attributes:
        case: The projection. Time and bytes depend on its dimension, hardly on its kind.
        map_size: Height and width of the map.
        threads: Threads of engine and kernel.
        step: Feature maps to anomaly map and score: upsampling, whitening, smoothing, maximum.
        frame: Frame to score: resize, network, step.
        factor_bytes: Packed fp16 whitening factors.
        bundle_bytes: Graph, factors, means and projection; without golden frames and manifest.
    """

    case: Case
    map_size: tuple[int, int]
    threads: int
    step: Timing
    frame: Timing
    factor_bytes: int
    bundle_bytes: int


def random_gaussians(positions: int, dimension: int, seed: int) -> Gaussians:
    """Statistics for timing: every position has memory of its own, all hold the same random factor.

    Args:
        positions: Number of Gaussians P.
        dimension: Dimension d.
        seed: Of the factor and the mean.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    lower = np.tril(generator.standard_normal((dimension, dimension))) / np.sqrt(dimension) + np.eye(dimension)
    packed = pack(lower, np.float16)
    mean = generator.standard_normal((1, 1, dimension), np.float32)
    return Gaussians(
        means=np.repeat(mean, positions, axis=0),
        factors=np.repeat(packed[None, None], positions, axis=0),
        scales=np.ones((positions, 1), np.float32),
        assignment=np.arange(positions, dtype=np.int32),
    )


class FramePath:
    """The whole way of a frame, with random statistics.

    Args:
        exported: The feature graph.
        channels: Of the frames.
        sigma_px: Smoothing, pixels of the network's input.
        threads: Threads of engine and kernel.
    """

    def __init__(self, exported: Exported, *, channels: int, sigma_px: float, threads: int) -> None:
        height, width = exported.map_size
        dimension = exported.projection.dimension
        frame_input = Input(
            height=exported.height, width=exported.width, channels=3 if channels == 3 else 1, interpolation="area"
        )
        self.gaussians = random_gaussians(height * width, dimension, seed=dimension)
        self._extractor = FeatureExtractor(
            exported.features,
            frame_input,
            exported.network,
            [dimension] * len(exported.network.outputs),
            backend=ENGINES[exported.network.precision][0],
            threads=threads,
        )
        self._kernel = MahalanobisMap(
            self.gaussians,
            [(output.height, output.width) for output in exported.network.outputs],
            exported.map_size,
            sigma=sigma_px * width / exported.width,
            threads=threads,
        )

    def network(self) -> None:
        """Runs the network alone."""
        self._extractor.run()

    def step(self) -> None:
        """Runs the Mahalanobis step on the feature maps of the last frame."""
        self._kernel(self._extractor.maps)

    def frame(self, frame: Frame) -> None:
        """Runs everything."""
        self._extractor.load(0, frame)
        self._kernel(self._extractor.run())

    def close(self) -> None:
        """Frees the engine."""
        self._extractor.close()


def export_case(backbone: Backbone, case: Case, *, channels: int, map_stride: int | None) -> Exported:
    """The feature graph of one projection."""
    return export_features(
        backbone,
        channels=channels,
        projection=case.kind,
        dimension=case.dimension,
        map_stride=map_stride,
        seed=case.seed,
    )


def factor_bytes(positions: int, dimension: int) -> int:
    """Bytes of the packed fp16 factors."""
    return positions * packed_size(dimension) * 2


def bundle_bytes(exported: Exported) -> int:
    """Bytes of what a bundle holds besides golden frames and manifest."""
    positions, dimension = exported.map_size[0] * exported.map_size[1], exported.projection.dimension
    projection = 0 if exported.stored_projection is None else exported.stored_projection.nbytes
    return len(exported.features) + factor_bytes(positions, dimension) + positions * dimension * 4 + projection


def measure(
    backbone: Backbone,
    cases: Sequence[Case],
    frames: Sequence[Frame],
    *,
    map_stride: int | None,
    sigma_px: float,
    threads: int,
    rounds: int,
) -> list[Cost]:
    """Times several projections in alternation.

    Args:
        backbone: The network.
        cases: Projections.
        frames: Real frames, all grey or all colour; a fresh one each time.
        map_stride: Input pixels per position of the map; the network's default if None.
        sigma_px: Smoothing, pixels of the network's input.
        threads: Threads of engine and kernel.
        rounds: Timed calls of each.
    """
    channels = 1 if frames[0].ndim == 2 else 3
    graphs = {case: export_case(backbone, case, channels=channels, map_stride=map_stride) for case in cases}
    needed = sum(bundle_bytes(exported) + _ENGINE_BYTES for exported in graphs.values())
    require(needed, f"timing {len(cases)} projections", "raise the map stride")
    paths = {
        case: FramePath(exported, channels=channels, sigma_px=sigma_px, threads=threads)
        for case, exported in graphs.items()
    }
    turn = itertools.cycle(frames)
    calls: dict[str, Callable[[], object]] = {}
    for case, path in paths.items():
        calls[f"step {case}"] = path.step
        calls[f"frame {case}"] = lambda path=path: path.frame(next(turn))  # type: ignore[misc]
    timings = alternate(calls, rounds=rounds)
    costs = [
        Cost(
            case=case,
            map_size=graphs[case].map_size,
            threads=threads,
            step=timings[f"step {case}"],
            frame=timings[f"frame {case}"],
            factor_bytes=path.gaussians.factors.nbytes,
            bundle_bytes=bundle_bytes(graphs[case]),
        )
        for case, path in paths.items()
    ]
    for path in paths.values():
        path.close()
    return costs
