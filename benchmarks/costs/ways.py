"""Ways to run a detector: a bundle, one of the precisions that it holds, an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flawline.runtime import Detector
from flawline.runtime.backends import installed
from flawline.runtime.bundle import MapKind, ReconstructionManifest, read
from flawline.runtime.errors import InputError
from flawline.runtime.precisions import ENGINES, GPU_ENGINES, Precision


@dataclass(frozen=True)
class Setup:
    """What tells one way from another in results.

    Attributes:
        dimension: Projected dimension d; of a reconstruction principal components, or values of the bottleneck.
        precision: Of the network.
        engine: That runs it.
    """

    dimension: int
    precision: Precision
    engine: str

    @property
    def name(self) -> str:
        """As it stands in tables of one dimension."""
        return f"{self.precision} {self.engine}"


@dataclass(frozen=True)
class Way:
    """One way to run a detector.

    Attributes:
        bundle: Folder of the bundle.
        setup: How it is run.
        map: Kind of the anomaly map; None for the bundle's own.
    """

    bundle: Path
    setup: Setup
    map: MapKind | None = None

    def open(self, *, threads: int, batch: int = 1) -> Detector:
        """Opens the detector; see `Detector.open`."""
        setup = self.setup
        return Detector.open(
            self.bundle, backend=setup.engine, precision=setup.precision, threads=threads, batch=batch, map=self.map
        )


def ways_of(bundle: Path, precision: Precision, engines: Sequence[str], kind: MapKind | None = None) -> list[Way]:
    """A bundle in one of its precisions, in each of the engines.

    Raises:
        BundleError: The bundle is damaged.
        InputError: It does not hold that precision, or does not offer that kind of anomaly map.
    """
    manifest = read(bundle).select(precision).with_map(kind).manifest
    if isinstance(manifest, ReconstructionManifest):
        dimension = manifest.reconstruction.components
    else:
        dimension = manifest.projection.dimension
    return [Way(bundle, Setup(dimension, precision, engine), kind) for engine in engines]


def engines_of(precision: Precision, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """Engines that compute in a precision: those asked for, or those that are installed.

    Args:
        precision: Of the network.
        asked: Names of engines; None for all on the CPU that are installed. Where none is, the one whose absence is to be
            told.

    Raises:
        InputError: None of those asked for computes in that precision.
    """
    on_cpu = ENGINES[precision]
    if asked is None:
        return tuple(engine for engine in on_cpu if engine in installed()) or on_cpu[:1]
    capable = (*on_cpu, *GPU_ENGINES.get(precision, ()))
    chosen = tuple(engine for engine in capable if engine in asked)
    if not chosen:
        raise InputError(f"{', '.join(asked)} does not compute in {precision}; expected {' or '.join(capable)}")
    return chosen
