"""Where the time of a frame goes: per stage and end to end, for several detectors in alternation."""

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.costs.ways import Setup, Way
from flawline.benchmarks.environment import resident_memory_bytes
from flawline.benchmarks.timing import Timing, rotation
from flawline.runtime import Detector
from flawline.runtime.progress import progress

Frame = NDArray[np.uint8]
Case = Literal["as calibrated", "rejected"]

STAGES = ("resize", "network", "kernel", "regions")
CASES: tuple[Case, ...] = get_args(Case)
SETTLED_ROUNDS = 50
_WARMUP_ROUNDS = 10
# Below its own threshold a frame is not searched for regions, which would flatter the time of a reject.
_LOWERED_THRESHOLD = 0.9


@dataclass(frozen=True)
class Latency:
    """Time of a frame, one way and one number of threads.

    Attributes:
        setup: What ran.
        threads: Threads of engine and kernel.
        case: "as calibrated", or "rejected": the threshold is lowered to 0.9 of the median calibration score, so that
            most frames are searched for regions.
        stages: Timing by stage: resize, network, kernel (with map, smoothing and maximum) and regions.
        outside_network: Everything but the network: end to end less the network, frame by frame.
        end_to_end: The detector's call, from frame to result.
        p99_over_p50: Of `end_to_end`.
        cpu_ns: Processor time of all threads of the process during the call, mean over the frames.
        rejected_frames: How many of the timed frames were rejected.
    """

    setup: Setup
    threads: int
    case: Case
    stages: dict[str, Timing]
    outside_network: Timing
    end_to_end: Timing
    p99_over_p50: float
    cpu_ns: float
    rejected_frames: int

    @property
    def name(self) -> str:
        """As it stands in tables of one dimension and one number of threads."""
        return self.setup.name + (", rejected" if self.case == "rejected" else "")


@dataclass(frozen=True)
class Resident:
    """Resident memory of the process while all detectors of one number of threads scored.

    Attributes:
        threads: Threads of each.
        settled_rounds: Timed rounds before the first reading.
        rounds: Timed rounds before the last.
        settled_bytes: The first reading.
        end_bytes: The last; more than the first means that something grows.
    """

    threads: int
    settled_rounds: int
    rounds: int
    settled_bytes: int
    end_bytes: int


def measure(
    ways: Sequence[Way], frames: Sequence[Frame], *, threads: int, runs: int, cases: Sequence[Case] = CASES
) -> tuple[list[Latency], Resident]:
    """Times detectors on fresh frames, one frame of each in turn, in an order that rotates.

    Where there are several detectors, each timed frame follows an untimed one of the same detector, so that it finds the
    caches as it would if it ran alone.

    Args:
        ways: Detectors.
        frames: Real frames; each round takes the next one.
        threads: Threads of engine and kernel.
        runs: Timed rounds.
        cases: Thresholds.

    Returns:
        One entry per way and case, and the memory of all together.

    Raises:
        BundleError: A bundle is damaged.
        InputError: A frame is not what a bundle takes, or an engine does not compute in a precision.
        MissingExtraError: An engine is not installed.
    """
    with ExitStack() as stack:
        opened = [(way, stack.enter_context(way.open(threads=threads))) for way in ways]
        timed = [_Timed(way, detector, case, runs) for (way, detector), case in itertools.product(opened, cases)]
        settled_rounds, settled_bytes = min(SETTLED_ROUNDS, runs), 0
        rounds = _WARMUP_ROUNDS + runs
        turns = progress(
            rotation(timed, rounds), total=rounds * len(timed), label=f"timing, threads {threads}", unit="frame"
        )
        for index, turn in turns:
            run = index - _WARMUP_ROUNDS
            if len(opened) > 1:
                turn.prime(frames[(index + 1) % len(frames)])
            turn(run, frames[index % len(frames)])
            if run == settled_rounds - 1:
                settled_bytes = resident_memory_bytes()
        resident = Resident(threads, settled_rounds, runs, settled_bytes, resident_memory_bytes())
    return [turn.result(threads) for turn in timed], resident


class _Timed:
    """One detector at one threshold, and what its frames took."""

    def __init__(self, way: Way, detector: Detector, case: Case, runs: int) -> None:
        self._way = way
        self._detector = detector
        self._case = case
        self._threshold = detector.bundle.manifest.threshold.score
        if case == "rejected":
            self._threshold = _LOWERED_THRESHOLD * float(np.median(detector.bundle.calibration_scores))
        # Written once, so that the pages are there before the memory of the process is read.
        self._stages = np.full((runs, len(STAGES)), -1, np.int64)
        self._total = np.full(runs, -1, np.int64)
        self._cpu = np.full(runs, -1, np.int64)
        self._rejected = np.full(runs, True)

    def prime(self, frame: Frame) -> None:
        """Scores a frame that does not count."""
        self._detector.threshold = self._threshold
        self._detector(frame)

    def __call__(self, run: int, frame: Frame) -> None:
        """Scores a frame; it counts if the run is not negative."""
        self._detector.threshold = self._threshold
        cpu = time.process_time_ns()
        start = time.perf_counter_ns()
        result = self._detector(frame)
        taken = time.perf_counter_ns() - start
        if run >= 0:
            self._cpu[run] = time.process_time_ns() - cpu
            self._total[run] = taken
            self._stages[run] = [self._detector.timings_ns[stage] for stage in STAGES]
            self._rejected[run] = result.verdict == "reject"

    def result(self, threads: int) -> Latency:
        """Summarises what was timed."""
        end_to_end = Timing.of(self._total)
        return Latency(
            setup=self._way.setup,
            threads=threads,
            case=self._case,
            stages={stage: Timing.of(self._stages[:, column]) for column, stage in enumerate(STAGES)},
            outside_network=Timing.of(self._total - self._stages[:, STAGES.index("network")]),
            end_to_end=end_to_end,
            p99_over_p50=end_to_end.p99_ns / end_to_end.p50_ns,
            cpu_ns=float(self._cpu.mean()),
            rejected_frames=int(self._rejected.sum()),
        )
