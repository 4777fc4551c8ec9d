"""The report's headline case: Wide ResNet-50-2, 56 x 56 positions, selection at 550 against JL at 150 dimensions.

Zhang, Zhang, Dong (2021), section 5, claims a threefold inference speed and a tenfold saving of memory, accuracy being
equal. Here time and bytes only: weights and statistics are random.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.jl.cost import Frame, FramePath, bundle_bytes, export_case
from flawline.benchmarks.jl.sweep import Case
from flawline.benchmarks.rivals import numpy_matmul, onnx_runtime
from flawline.benchmarks.timing import Timing, alternate
from flawline.export.features import Backbone, open_backbone
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.memory import require

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[bench]'")

BACKBONE = "wide-resnet50-2"
MAP_STRIDE = 4
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

    Args:
        frames: Real frames, all grey or all colour; a fresh one each time.
        image_size: Height and width of the network's input; the report's map of 56 x 56 comes with 224.
        sigma_px: Smoothing, pixels of the network's input.
        threads: Threads of engine, kernel and BLAS.
        rounds: Timed calls of each.

    Raises:
        InputError: There is no frame.
        ResourceError: The fp32 inverses (3.8 GB at 56 x 56 and 550) and the rest would not fit.
    """
    if not frames:
        raise InputError("no frames to time with; expected a folder of images")
    positions = (image_size // MAP_STRIDE) ** 2
    inverses = 4 * positions * (SELECTION.dimension**2 + JL.dimension**2)
    require(round(1.4 * inverses) + (1 << 30), "the headline case with fp32 inverses", "use a machine with more memory")
    backbone = open_backbone(
        BACKBONE, layers=None, weights="random", image_size=image_size, mean=None, std=None, seed=0
    )
    sides = {case: _Side(backbone, case, frames, sigma_px=sigma_px, threads=threads) for case in (SELECTION, JL)}
    calls = {(case, name): call for case, side in sides.items() for name, call in side.calls().items()}
    with threadpoolctl.threadpool_limits(limits=threads):
        timings = alternate(calls, rounds=rounds)
    for side in sides.values():
        side.path.close()
    selection, jl = sides[SELECTION], sides[JL]
    return Headline(
        map_size=selection.map_size,
        threads=threads,
        selection_frame=timings[SELECTION, "frame"],
        jl_frame=timings[JL, "frame"],
        selection_network=timings[SELECTION, "network"],
        jl_network=timings[JL, "network"],
        selection_bundle_bytes=selection.bundle_bytes,
        jl_bundle_bytes=jl.bundle_bytes,
        forms=[_form(name, timings, selection.bytes[name], jl.bytes[name]) for name in (PACKED, ORT, NUMPY)],
    )


class _Side:
    """One of the two projections, with everything that is timed of it."""

    def __init__(
        self, backbone: Backbone, case: Case, frames: Sequence[Frame], *, sigma_px: float, threads: int
    ) -> None:
        channels = 1 if frames[0].ndim == 2 else 3
        exported = export_case(backbone, case, channels=channels, map_stride=MAP_STRIDE)
        self.path = FramePath(exported, channels=channels, sigma_px=sigma_px, threads=threads)
        self.map_size = exported.map_size
        self.bundle_bytes = bundle_bytes(exported)
        self._turn = itertools.cycle(frames)
        self._by_onnx_runtime = onnx_runtime(threads)
        self._centred, self._inverse = _textbook_arrays(self.map_size[0] * self.map_size[1], case.dimension)
        self.bytes = {
            PACKED: self.path.gaussians.factors.nbytes,
            ORT: self._inverse.nbytes,
            NUMPY: self._inverse.nbytes,
        }

    def calls(self) -> dict[str, Callable[[], object]]:
        """What is timed, by name."""
        return {
            "frame": lambda: self.path.frame(next(self._turn)),
            "network": self.path.network,
            PACKED: self.path.step,
            ORT: lambda: self._by_onnx_runtime(self._centred, self._inverse),
            NUMPY: lambda: numpy_matmul(self._centred, self._inverse),
        }


def _form(name: str, timings: dict[tuple[Case, str], Timing], selection_bytes: int, jl_bytes: int) -> Form:
    selection, jl = timings[SELECTION, name], timings[JL, name]
    selection_frame = timings[SELECTION, "network"].p50_ns + selection.p50_ns
    jl_frame = timings[JL, "network"].p50_ns + jl.p50_ns
    return Form(
        name=name,
        selection_step=selection,
        jl_step=jl,
        selection_bytes=selection_bytes,
        jl_bytes=jl_bytes,
        faster_step=selection.p50_ns / jl.p50_ns,
        faster_frame=selection_frame / jl_frame,
        smaller=selection_bytes / jl_bytes,
    )


def _textbook_arrays(positions: int, dimension: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centred embeddings (P, d), and inverses (P, d, d): one symmetric matrix, repeated in memory of its own."""
    generator = np.random.Generator(np.random.Philox(key=dimension))
    root = generator.standard_normal((dimension, dimension), np.float32) / np.float32(np.sqrt(dimension))
    inverse = np.empty((positions, dimension, dimension), np.float32)
    inverse[...] = root @ root.T + np.eye(dimension, dtype=np.float32)
    return generator.standard_normal((positions, dimension), np.float32), inverse
