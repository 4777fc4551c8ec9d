"""A whole frame on a GPU, with and without a CUDA graph: features by torch, everything else by the runtime."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flawline.benchmarks.gpu.statistics import random_gaussians
from flawline.benchmarks.gpu.torch_engine import Precision, TorchEngine
from flawline.benchmarks.timing import Timing, rotation
from flawline.calibration import projections
from flawline.export.features import Backbone, Exported, export_features
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.padim import PadimScoring
from flawline.runtime.gpu.pipeline import STAGES
from flawline.runtime.gpu.room import needed_bytes
from flawline.runtime.gpu.scorer import GpuScorer
from flawline.runtime.kernels import Gaussians

_FACTORS: dict[str, Literal["fp16", "fp32", "int8"]] = {"float16": "fp16", "float32": "fp32", "int8": "int8"}
_SIGMA_PX = 4.0
_WARMUP = 20


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        network: Name of the network.
        projection: Its kind.
        dimension: d.
        factors: "float16", "float32" or "int8".
        precision: Of the network in torch: "fp16" or "fp32".
        graph: Whether frames shall be launched as one CUDA graph.
    """

    network: str
    projection: projections.Kind
    dimension: int
    factors: str
    precision: Precision
    graph: bool


@dataclass(frozen=True)
class Measured:
    """A frame, from uint8 in the host's memory to score and map there.

    Attributes:
        case: What was measured.
        engine: What computed the features.
        size_px: Height and width of frame and network's input.
        map_size: Height and width of the map.
        graph_refused: Why they were launched piece by piece; None for those that were not.
        gpu_bytes: What the detector allocates on the GPU, counted; without what torch holds.
        end_to_end: Time of a call, on the host's clock.
        stages: Of the same calls, on the GPU's clock but for "load".
    """

    case: Case
    engine: str
    size_px: tuple[int, int]
    map_size: tuple[int, int]
    graph_refused: str | None
    gpu_bytes: int
    end_to_end: Timing
    stages: dict[str, Timing]


def measure(
    device: Device,
    backbones: Callable[[str], Backbone],
    cases: Sequence[Case],
    *,
    rounds: int,
    engine: type[TorchEngine] = TorchEngine,
) -> list[Measured]:
    """Times frames in alternation.

    Args:
        device: The GPU.
        backbones: Gives each network by its name.
        cases: What is measured, all in one run.
        rounds: Timed frames of each.
        engine: What computes the features.

    Raises:
        FlawlineError: A detector cannot be had.
    """
    opened: list[_Subject] = []
    try:
        for case in cases:
            opened.append(_Subject(device, backbones(case.network), case, engine))  # noqa: PERF401 -- those before are closed
        totals: dict[int, list[int]] = {number: [] for number in range(len(cases))}
        stages: dict[int, list[dict[str, int]]] = {number: [] for number in totals}
        warmup = min(_WARMUP, rounds)
        for index, number in rotation(totals, warmup + rounds):
            subject = opened[number]
            taken_ns = subject.run_ns()
            if index >= warmup:
                totals[number].append(taken_ns)
                stages[number].append(dict(subject.scorer.timings_ns))
        return [
            Measured(
                case=subject.case,
                engine=subject.scorer.backend,
                size_px=(subject.exported.height, subject.exported.width),
                map_size=subject.exported.map_size,
                graph_refused=subject.scorer.graph_refused,
                gpu_bytes=subject.gpu_bytes,
                end_to_end=Timing.of(totals[number]),
                stages={name: Timing.of([one[name] for one in stages[number]]) for name in STAGES},
            )
            for number, subject in enumerate(opened)
        ]
    finally:
        for subject in opened:
            subject.scorer.close()


def random_manifest(exported: Exported, gaussians: Gaussians, factors: str) -> facts.PadimManifest:
    """A manifest for timing: nothing was fitted.

    Args:
        exported: The network.
        gaussians: The statistics.
        factors: "float16", "float32" or "int8".
    """
    height, width = exported.map_size
    return facts.PadimManifest(
        input=facts.Input(height=exported.height, width=exported.width, channels=3, interpolation="area"),
        network=exported.network,
        projection=exported.projection,
        map=facts.Map(height=height, width=width, upsampling="bilinear", sigma=_SIGMA_PX * height / exported.height),
        gaussian=facts.Gaussian(
            tie="position",
            count=gaussians.count,
            components=1,
            epsilon=0.01,
            epsilon_relative=True,
            shrinkage=None,
            factors=_FACTORS[factors],
            block_rows=8,
        ),
        threshold=facts.Threshold(false_reject_rate=0.05, score=1.0, calibration_images=1),
        fit=facts.Fit(images=1, calibration_images=1, group_by=None, seed=0, sources_sha256="0" * 64),
        parity=None,
        golden=facts.GoldenFacts(relative_tolerance=5e-3),
    )


class _Subject:
    """A detector on the GPU, and a frame for it."""

    def __init__(self, device: Device, backbone: Backbone, case: Case, engine: type[TorchEngine]) -> None:
        self.case = case
        self.exported = export_features(
            backbone, channels=3, projection=case.projection, dimension=case.dimension, map_stride=None, seed=0
        )
        height, width = self.exported.map_size
        gaussians = random_gaussians(height * width, case.dimension, case.factors)
        depth = self.exported.projection.input_dimension
        matrix = projections.expand(case.projection, self.exported.stored_projection, depth)
        generator = np.random.default_rng(0)
        self._frame = generator.integers(0, 256, (self.exported.height, self.exported.width, 3), np.uint8)
        manifest = random_manifest(self.exported, gaussians, case.factors)
        scoring = PadimScoring(manifest, gaussians)
        self.gpu_bytes = needed_bytes(scoring, 1)
        self.scorer = GpuScorer(
            device,
            scoring,
            lambda source, targets: engine(
                self.exported, matrix, case.precision, 1, source, targets, capturable=case.graph
            ),
        )

    def run_ns(self) -> int:
        """Scores the frame: nanoseconds."""
        start = time.perf_counter_ns()
        self.scorer(self._frame)
        return time.perf_counter_ns() - start
