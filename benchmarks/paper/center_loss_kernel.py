"""What the Mahalanobis test costs with a thousand classes, and what a random projection of deep features saves and loses."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.timing import Timing, alternate
from flawline.calibration.projections import matrix
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.kernels import Gaussians, implementations, mahalanobis, pack, packed_size, read_bandwidth
from flawline.runtime.memory import require

Floats = npt.NDArray[np.float32]

BATCHES = (1, 8)
_COMPARED_CLASSES = 3
_RELATIVE_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class KernelStudy:
    """What is measured.

    Attributes:
        classes: Gaussians.
        dimension: Deep features of an image.
        projected: Dimensions to project them to.
        rounds: Timed calls of each case.
        images: Of each class to fit to, of real deep features; a quarter as many are tested.
        side_px: Of the images that these are of.
        seed: Of what is drawn.
    """

    classes: int = 1000
    dimension: int = 1280
    projected: tuple[int, ...] = (64, 128, 256)
    rounds: int = 20
    images: int = 200
    side_px: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            InputError: A value out of its range.
        """
        unfit = next((one for one in self.projected if not 1 <= one <= self.dimension), None)
        if unfit is not None:
            raise InputError(f"--projected: {unfit} is among them; expected 1 to {self.dimension}")


@dataclass(frozen=True)
class Cost:
    """One dimension.

    Attributes:
        dimension: Of what the kernel takes.
        factor_bytes: Of the fp16 factors.
        image_ns: By batch: time of a call, the projection included, for the whole batch.
        read: Time to read the factors once.
    """

    dimension: int
    factor_bytes: int
    image_ns: dict[int, Timing]
    read: Timing

    def bandwidth_share(self, batch: int) -> float:
        """Time of reading the factors once, as a plain read does, over the time of a call; above 1 beyond the bound."""
        return self.read.p50_ns / self.image_ns[batch].p50_ns


def costs(study: KernelStudy, threads: int, say: Callable[[str], object]) -> list[Cost]:
    """Times the kernel on synthetic Gaussians, whose covariances are random and well conditioned.

    Args:
        study: What is measured.
        threads: Of the kernel.
        say: Takes each line that tells what is being done.

    Returns:
        All features first, then the projections.

    Raises:
        ResourceError: The factors would not fit into memory.
        FlawlineError: The kernel disagrees with its reference.
    """
    generator = np.random.default_rng(study.seed)
    vectors = generator.standard_normal((max(BATCHES), 1, study.dimension), np.float32)
    found = []
    for dimension in (study.dimension, *study.projected):
        say(f"kernel: {study.classes} classes of {dimension} features")
        gaussians = synthetic(study.classes, dimension, generator)
        projection = None
        if dimension < study.dimension:
            projection = matrix(
                "orthogonal", input_dimension=study.dimension, dimension=dimension, seed=study.seed
            ).T.copy()
        _compare(gaussians, vectors if projection is None else vectors @ projection)
        cases: dict[int, Callable[[], object]] = {
            batch: partial(
                _distances,
                vectors[:batch],
                projection,
                gaussians,
                np.empty((batch, study.classes), np.float32),
                threads,
            )
            for batch in BATCHES
        }
        timings = alternate(
            {**cases, 0: partial(read_bandwidth, gaussians.factors, threads)}, rounds=study.rounds, warmup=1
        )
        read = timings.pop(0)
        found.append(Cost(dimension, gaussians.factors.nbytes, timings, read))
    return found


def synthetic(classes: int, dimension: int, generator: np.random.Generator) -> Gaussians:
    """Random Gaussians: inverse Cholesky factors of the identity and small normal numbers below, in fp16.

    Raises:
        ResourceError: They would not fit into memory.
    """
    size = packed_size(dimension, None)
    require(
        classes * (2 * size + 4 * dimension),
        f"{classes} classes of {dimension} features in fp16",
        "ask for fewer classes",
    )
    identity = pack(np.eye(dimension, dtype=np.float32), np.float32)
    below = pack(np.tril(np.full((dimension, dimension), 0.5 / dimension**0.5, np.float32), -1), np.float32)
    factors = np.empty((classes, 1, size), np.float16)
    for one in factors:
        one[0] = identity + below * generator.standard_normal(size, np.float32)
    return Gaussians(
        means=generator.standard_normal((classes, 1, dimension), np.float32),
        factors=factors,
        scales=np.ones((classes, 1), np.float32),
        assignment=np.arange(classes, dtype=np.int32),
    )


def _distances(x: Floats, projection: Floats | None, gaussians: Gaussians, out: Floats, threads: int) -> Floats:
    return mahalanobis(x if projection is None else x @ projection, gaussians, out, threads=threads)


def _compare(gaussians: Gaussians, x: Floats) -> None:
    """Refuses to time a kernel that computes something else."""
    few = slice(_COMPARED_CLASSES)
    part = Gaussians(
        gaussians.means[few], gaussians.factors[few], gaussians.scales[few], gaussians.assignment[few].copy()
    )
    expected = mahalanobis(x, part, implementation="reference")
    for name in implementations():
        # A comparison that NaN fails.
        if not np.all(np.abs(mahalanobis(x, part, implementation=name) - expected) <= _RELATIVE_TOLERANCE * expected):
            raise FlawlineError(f"the {name} kernel disagrees with its reference; nothing was timed")
