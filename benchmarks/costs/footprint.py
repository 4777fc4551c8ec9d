"""What a detector takes besides time: bytes on disk, memory, and the least that its factors cost to read."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flawline.benchmarks.costs.ways import Setup, Way
from flawline.calibration.woodbury import Form
from flawline.runtime.bundle import Bundle, ReconstructionManifest, read
from flawline.runtime.errors import FlawlineError
from flawline.runtime.kernels import read_bandwidth
from flawline.runtime.precisions import Precision

_BANDWIDTH_READS = 30
# Read by the child itself: what a parent sees of a child includes the parent's own size when it forked.
_PEAK_SCRIPT = """
import resource
import sys
from flawline.__main__ import main
status = main(sys.argv[1:])
with open("/proc/self/status") as lines:
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
sys.stderr.write(f"peak {max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)} kB")
sys.exit(status)
"""


@dataclass(frozen=True)
class Factors:
    """How the covariances are stored.

    Attributes:
        factor_type: "fp32", "fp16" or "int8".
        form: "triangle" or "woodbury", which depends on the number of good images and the dimension.
        factor_bytes: With row scales.
    """

    factor_type: str
    form: Form
    factor_bytes: int

    @classmethod
    def of(cls, bundle: Bundle) -> "Factors":
        """Those of a bundle in its precision."""
        gaussian = bundle.padim.gaussian
        return cls(gaussian.factors, gaussian.form, factor_bytes(bundle))


@dataclass(frozen=True)
class Footprint:
    """Bytes and memory of a detector.

    Attributes:
        setup: What ran.
        bundle_bytes: The manifest and the files of this precision: what a bundle with nothing else would take.
        network_bytes: Of those, the feature graph.
        factor_bytes: Of those, the packed factors, with their row scales; 0 for a reconstruction detector.
        peak_memory_bytes: Of `flawline score --backend ENGINE` on one thread, in a process of its own.
    """

    setup: Setup
    bundle_bytes: int
    network_bytes: int
    factor_bytes: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class AutoPeak:
    """Peak memory with `--backend auto`, which tries each engine that computes in the precision in a process of its own.

    Attributes:
        precision: Of the network.
        peak_memory_bytes: Of `flawline score` on one thread: of its largest process.
    """

    precision: Precision
    peak_memory_bytes: int


@dataclass(frozen=True)
class Floor:
    """The least that the kernel could take, if nothing but the factors had to be read.

    Attributes:
        precision: Of the network whose factors they are.
        threads: Threads that read.
        factor_bytes: Bytes of the packed factors, with their row scales.
        bytes_per_second: Fastest of several plain reads of those very factors in this run.
        floor_ns: Factor bytes over that.
    """

    precision: Precision
    threads: int
    factor_bytes: int
    bytes_per_second: float
    floor_ns: float


@dataclass(frozen=True)
class BasisFloor:
    """The least that the network could take, if nothing but its principal components had to be read.

    Attributes:
        precision: Of the network.
        threads: Threads that read.
        basis_bytes: Of the components in float32, as engines hold them.
        bytes_per_second: Fastest of several plain reads of as many bytes in this run.
        floor_ns: The time of two reads: of one into the coefficients, and of one back.
    """

    precision: Precision
    threads: int
    basis_bytes: int
    bytes_per_second: float
    floor_ns: float


def footprint(way: Way, image: Path) -> Footprint:
    """Weighs a detector.

    Args:
        way: The detector.
        image: That is scored for the peak memory.

    Raises:
        FlawlineError: Scoring failed.
    """
    bundle, precision = read(way.bundle), way.setup.precision
    return Footprint(
        setup=way.setup,
        bundle_bytes=bundle_bytes(bundle, precision),
        network_bytes=bundle.manifest.files[bundle.manifest.file_names(precision).features].size,
        factor_bytes=factor_bytes(bundle.select(precision)),
        peak_memory_bytes=peak_memory_bytes(way, image),
    )


def bundle_bytes(bundle: Bundle, precision: Precision) -> int:
    """The manifest and the files of one precision: what a bundle with nothing else would take."""
    files = bundle.manifest.files
    manifest_bytes = bundle.total_bytes - sum(entry.size for entry in files.values())
    return manifest_bytes + sum(files[name].size for name in bundle.manifest.file_names(precision))


def factor_bytes(bundle: Bundle) -> int:
    """The packed factors of a bundle in its precision, with their row scales; 0 where there are none."""
    return sum(bundle.statistics[name].nbytes for name in ("factors", "row_scales") if name in bundle.statistics)


def floor(bundle: Bundle, *, threads: int) -> Floor:
    """Measures how fast the factors of a bundle in its precision can be read at all."""
    fastest = max(read_bandwidth(bundle.statistics["factors"], threads) for _ in range(_BANDWIDTH_READS))
    stored = factor_bytes(bundle)
    return Floor(bundle.manifest.network.precision, threads, stored, fastest, 1e9 * stored / fastest)


def basis_floor(manifest: ReconstructionManifest, *, threads: int) -> BasisFloor:
    """Measures how fast the principal components of a detector can be read at all."""
    received = manifest.input
    values = manifest.reconstruction.components * received.channels * received.height * received.width
    basis = np.full(values, 1, np.float32)
    fastest = max(read_bandwidth(basis, threads) for _ in range(_BANDWIDTH_READS))
    return BasisFloor(manifest.network.precision, threads, basis.nbytes, fastest, 2e9 * basis.nbytes / fastest)


def peak_memory_bytes(way: Way, image: Path, *, backend: str | None = None) -> int:
    """Peak memory of `flawline score BUNDLE IMAGE` in a process of its own, or of the child that tries an engine if larger.

    Args:
        way: The detector.
        image: To score.
        backend: Word for --backend; the engine of the detector if None.

    Raises:
        FlawlineError: Scoring failed.
    """
    words = ["score", str(way.bundle), str(image), "--any-size"]
    words += ["--backend", backend or way.setup.engine, "--precision", way.setup.precision]
    words += [] if way.map is None else ["--map", way.map]
    command = [sys.executable, "-c", _PEAK_SCRIPT, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    if not lines or not lines[-1].startswith("peak "):
        raise FlawlineError(
            f"scoring {image} in a process of its own failed: {lines[-1] if lines else done.returncode}"
        )
    return int(lines[-1].split()[1]) * 1024
