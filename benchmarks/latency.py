"""Where the time of a frame goes: per stage and end to end, against the least that memory allows."""

import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.timing import Timing
from flawline.runtime import Detector
from flawline.runtime.bundle import Bundle
from flawline.runtime.errors import FlawlineError
from flawline.runtime.kernels import read_bandwidth

STAGES = ("resize", "network", "kernel", "regions")
_WARMUP_FRAMES = 10
_BANDWIDTH_READS = 30
# Below its own threshold a frame is not searched for regions, which would flatter the time of a reject.
_LOWERED_THRESHOLD = 0.9
# Read by the child itself: what a parent sees of a child includes the parent's own size when it forked.
_PEAK_SCRIPT = """
import sys
from flawline.__main__ import main
status = main(sys.argv[1:])
with open("/proc/self/status") as lines:
    sys.stderr.write(next(line for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""


@dataclass(frozen=True)
class Latency:
    """Time of a frame with one number of threads.

    Attributes:
        threads: Threads of engine and kernel.
        case: "as calibrated", or "rejected": the threshold is lowered to 0.9 of the median calibration score, so that
            most frames are searched for regions.
        stages: Timing by stage: resize, network, kernel (with map, smoothing and maximum) and regions.
        outside_network: Everything but the network: end to end less the network, frame by frame.
        end_to_end: The detector's call, from frame to result.
        rejected_frames: How many of the timed frames were rejected.
    """

    threads: int
    case: str
    stages: dict[str, Timing]
    outside_network: Timing
    end_to_end: Timing
    rejected_frames: int


@dataclass(frozen=True)
class Floor:
    """The least that the kernel could take, if nothing but the factors had to be read.

    Attributes:
        threads: Threads that read.
        factor_bytes: Bytes of the packed factors.
        bytes_per_second: Fastest of several plain reads of those very bytes in this run.
        floor_ns: Factor bytes over that.
    """

    threads: int
    factor_bytes: int
    bytes_per_second: float
    floor_ns: float


def measure(bundle: Path, frames: Sequence[NDArray[np.uint8]], *, threads: int, runs: int) -> list[Latency]:
    """Times a detector on fresh frames in turn, as calibrated and with most frames rejected.

    Args:
        bundle: Folder of the bundle.
        frames: Real frames; each call gets the next one.
        threads: Threads of engine and kernel.
        runs: Timed frames per case.

    Raises:
        BundleError: The bundle is damaged.
        InputError: A frame is not what the bundle takes.
    """
    with Detector.open(bundle, threads=threads) as detector:
        scores = detector.bundle.statistics["calibration_scores"]
        lowered = _LOWERED_THRESHOLD * float(np.median(scores))
        return [
            _time(detector, frames, threshold, case, threads, runs)
            for case, threshold in (("as calibrated", detector.threshold), ("rejected", lowered))
        ]


def floor(bundle: Bundle, *, threads: int) -> Floor:
    """Measures how fast the factors can be read at all."""
    factors = bundle.statistics["factors"]
    fastest = max(read_bandwidth(factors, threads) for _ in range(_BANDWIDTH_READS))
    return Floor(threads, factors.nbytes, fastest, 1e9 * factors.nbytes / fastest)


def peak_memory_bytes(bundle: Path, image: Path) -> int:
    """Peak memory of `flawline score BUNDLE IMAGE` in a process of its own.

    Raises:
        FlawlineError: Scoring failed.
    """
    command = [sys.executable, "-c", _PEAK_SCRIPT, "score", str(bundle), str(image), "--any-size"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    if not lines or not lines[-1].startswith("VmHWM"):
        raise FlawlineError(
            f"scoring {image} in a process of its own failed: {lines[-1] if lines else done.returncode}"
        )
    return int(lines[-1].split()[1]) * 1024


def _time(
    detector: Detector,
    frames: Sequence[NDArray[np.uint8]],
    threshold: float,
    case: str,
    threads: int,
    runs: int,
) -> Latency:
    detector.threshold = threshold
    turn = itertools.cycle(frames)
    for _ in range(_WARMUP_FRAMES):
        detector(next(turn))
    stages = np.empty((runs, len(STAGES)), np.int64)
    total = np.empty(runs, np.int64)
    rejected = 0
    for run in range(runs):
        frame = next(turn)
        start = time.perf_counter_ns()
        result = detector(frame)
        total[run] = time.perf_counter_ns() - start
        stages[run] = [detector.timings_ns[stage] for stage in STAGES]
        rejected += result.verdict == "reject"
    return Latency(
        threads=threads,
        case=case,
        stages={stage: Timing.of(stages[:, column]) for column, stage in enumerate(STAGES)},
        outside_network=Timing.of(total - stages[:, STAGES.index("network")]),
        end_to_end=Timing.of(total),
        rejected_frames=rejected,
    )
