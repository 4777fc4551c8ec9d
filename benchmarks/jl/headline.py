"""The report's headline case: Wide ResNet-50-2, 56 x 56 positions, selection at 550 against JL at 150 dimensions.

Zhang, Zhang, Dong (2021), section 5, claims a threefold inference speed and a tenfold saving of memory, accuracy being equal.
Here time and bytes only: weights and statistics are random.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flawline.benchmarks.jl.cost import Frame, FramePath, bundle_bytes
from flawline.benchmarks.jl.sweep import Case
from flawline.benchmarks.textbook import OrtDistances, numpy_distances
from flawline.benchmarks.timing import Timing, alternate
from flawline.calibration.memory import require
from flawline.export.features import export_features, open_backbone

BACKBONE = "wide-resnet50-2"
SELECTION = Case("select", 550, 0)
JL = Case("gaussian", 150, 0)
CLAIMED_FASTER = 3.0
CLAIMED_SMALLER = 10.0
PACKED, ORT, NUMPY = "packed fp16 factor, flawline", "fp32 inverse, ONNX Runtime", "fp32 inverse, NumPy"


@dataclass(frozen=True)
class Form:
    """One way to write the Mahalanobis step, at both dimensions.

    Attributes:
        name: What it is.
        selection_step: The step at 550.
        jl_step: The step at 150.
        selection_bytes: Factors or inverses at 550.
        jl_bytes: At 150.
        faster_step: Ratio of the median steps.
        faster_frame: Ratio of the medians of network and step together.
        smaller: Ratio of the bytes.
    """

    name: str
    selection_step: Timing
    jl_step: Timing
    selection_bytes: int
    jl_bytes: int
    faster_step: float
    faster_frame: float
    smaller: float


@dataclass(frozen=True)
class Headline:
    """The headline case, measured.

    Attributes:
        map_size: Height and width of the map.
        threads: Threads of engine, kernel and BLAS.
        selection_frame: Frame to score at 550 with packed factors: resize, network, step.
        jl_frame: At 150.
        selection_network: Network with the projection folded in, at 550.
        jl_network: At 150.
        selection_bundle_bytes: Graph, packed factors, means and projection at 550.
        jl_bundle_bytes: At 150.
        forms: Each way to write the step.
    """

    map_size: tuple[int, int]
    threads: int
    selection_frame: Timing
    jl_frame: Timing
    selection_network: Timing
    jl_network: Timing
    selection_bundle_bytes: int
    jl_bundle_bytes: int
    forms: list[Form]


def measure(frames: Sequence[Frame], *, image_size: int, sigma_px: float, threads: int, rounds: int) -> Headline:
    """Times the headline case; every ratio is between calls that took turns in one run.

    The NumPy form runs on BLAS's threads, limited to the same number.

    Args:
        frames: Real frames, all grey or all colour; a fresh one each time.
        image_size: Height and width of the network's input; the report's map of 56 x 56 comes with 224.
        sigma_px: Smoothing, pixels of the network's input.
        threads: Threads.
        rounds: Timed calls of each.

    Raises:
        ResourceError: The fp32 inverses (3.8 GB at 56 x 56 and 550) and the rest would not fit.
    """
    positions = (image_size // 4) ** 2
    inverses = 4 * positions * (SELECTION.dimension**2 + JL.dimension**2)
    require(round(1.4 * inverses) + (1 << 30), "the headline case with fp32 inverses", "use a machine with more memory")
    channels = 1 if frames[0].ndim == 2 else 3
    backbone = open_backbone(
        BACKBONE, layers=None, weights="random", image_size=image_size, mean=None, std=None, seed=0
    )
    turn = itertools.cycle(frames)
    calls: dict[str, Callable[[], object]] = {}
    sizes: dict[tuple[str, Case], int] = {}
    bundles: dict[Case, int] = {}
    paths = []
    for case in (SELECTION, JL):
        exported = export_features(
            backbone,
            channels=channels,
            projection=case.kind,
            dimension=case.dimension,
            map_stride=backbone.map_stride,
            seed=case.seed,
        )
        path = FramePath(exported, channels=channels, sigma_px=sigma_px, threads=threads)
        inverse, mean, x = _textbook_arrays(positions, case.dimension)
        ort = OrtDistances(mean, inverse, threads=threads)
        ort.x[...] = x
        bundles[case] = bundle_bytes(exported)
        sizes |= {
            (PACKED, case): path.gaussians.factors.nbytes,
            (ORT, case): inverse.nbytes,
            (NUMPY, case): inverse.nbytes,
        }
        calls |= {
            f"frame {case}": lambda path=path: path.frame(next(turn)),  # type: ignore[misc]
            f"network {case}": path.network,
            f"{PACKED} {case}": path.step,
            f"{ORT} {case}": ort,
            f"{NUMPY} {case}": lambda x=x, mean=mean, inverse=inverse: numpy_distances(x, mean, inverse),  # type: ignore[misc]
        }
        paths.append(path)
        map_size = exported.map_size
    timings = alternate(calls, rounds=rounds)
    for path in paths:
        path.close()
    return Headline(
        map_size=map_size,
        threads=threads,
        selection_frame=timings[f"frame {SELECTION}"],
        jl_frame=timings[f"frame {JL}"],
        selection_network=timings[f"network {SELECTION}"],
        jl_network=timings[f"network {JL}"],
        selection_bundle_bytes=bundles[SELECTION],
        jl_bundle_bytes=bundles[JL],
        forms=[_form(name, timings, sizes) for name in (PACKED, ORT, NUMPY)],
    )


def _form(name: str, timings: dict[str, Timing], sizes: dict[tuple[str, Case], int]) -> Form:
    selection, jl = timings[f"{name} {SELECTION}"], timings[f"{name} {JL}"]
    selection_frame = timings[f"network {SELECTION}"].p50_ns + selection.p50_ns
    jl_frame = timings[f"network {JL}"].p50_ns + jl.p50_ns
    return Form(
        name=name,
        selection_step=selection,
        jl_step=jl,
        selection_bytes=sizes[name, SELECTION],
        jl_bytes=sizes[name, JL],
        faster_step=selection.p50_ns / jl.p50_ns,
        faster_frame=selection_frame / jl_frame,
        smaller=sizes[name, SELECTION] / sizes[name, JL],
    )


def _textbook_arrays(positions: int, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inverses (one symmetric matrix, repeated in memory of its own), means and embeddings, float32."""
    generator = np.random.Generator(np.random.Philox(key=dimension))
    root = generator.standard_normal((dimension, dimension), np.float32) / np.float32(np.sqrt(dimension))
    one = root @ root.T + np.eye(dimension, dtype=np.float32)
    inverse = np.empty((positions, dimension, dimension), np.float32)
    inverse[...] = one
    mean = generator.standard_normal((positions, dimension), np.float32)
    return inverse, mean, generator.standard_normal((positions, dimension), np.float32)
