"""What a batch saves: the tiles of a wide web share each factor, which is then read once for all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.costs.ways import Setup, Way
from flawline.benchmarks.timing import Timing, rotation
from flawline.runtime import Detector
from flawline.runtime.progress import progress

FRAMES_OF_A_BATCH = 8
_STAGES = ("network", "kernel")
_WARMUP_ROUNDS = 3


@dataclass(frozen=True)
class Batch:
    """Time of a frame alone and in a batch, by stage.

    Attributes:
        setup: What ran.
        threads: Threads of engine and kernel.
        frames: In a batch.
        alone: Timing of a call with one frame: network and kernel.
        batched: Timing of a call with a batch, divided by its frames.
        kernel_times_cheaper: Median kernel time alone over that in a batch.
    """

    setup: Setup
    threads: int
    frames: int
    alone: dict[str, Timing]
    batched: dict[str, Timing]
    kernel_times_cheaper: float

    @property
    def timings(self) -> dict[str, Timing]:
        """All that the table shows, by name."""
        of = {"alone": self.alone, f"in a batch of {self.frames}": self.batched}
        return {
            f"{self.setup.name}, threads {self.threads}, {stage} {where}": timings[stage]
            for where, timings in of.items()
            for stage in _STAGES
        }


def measure(way: Way, frames: Sequence[NDArray[np.uint8]], *, threads: int, rounds: int) -> Batch:
    """Times one frame and a batch in turn, each after an untimed call of its own.

    Args:
        way: The detector, which is opened twice.
        frames: Real frames; a batch repeats them if they are fewer.
        threads: Threads of engine and kernel.
        rounds: Timed calls of each.

    Raises:
        InputError: A frame is not what the bundle takes.
    """
    batch = [frames[index % len(frames)] for index in range(FRAMES_OF_A_BATCH)]
    with way.open(threads=threads) as one, way.open(threads=threads, batch=len(batch)) as several:
        calls: dict[int, Callable[[], tuple[int, ...]]] = {
            1: partial(_call, one, batch[:1]),
            len(batch): partial(_call, several, batch),
        }
        taken = {count: np.empty((rounds, len(_STAGES)), np.int64) for count in calls}
        turns = progress(
            rotation(calls, _WARMUP_ROUNDS + rounds),
            total=(_WARMUP_ROUNDS + rounds) * len(calls),
            label=f"batches, {way.setup.name}, threads {threads}",
            unit="call",
        )
        for index, count in turns:
            calls[count]()
            stages = calls[count]()
            if index >= _WARMUP_ROUNDS:
                taken[count][index - _WARMUP_ROUNDS] = stages
    alone, batched = (
        {stage: Timing.of(values[:, column] // count) for column, stage in enumerate(_STAGES)}
        for count, values in taken.items()
    )
    return Batch(
        setup=way.setup,
        threads=threads,
        frames=len(batch),
        alone=alone,
        batched=batched,
        kernel_times_cheaper=alone["kernel"].p50_ns / batched["kernel"].p50_ns,
    )


def _call(detector: Detector, frames: Sequence[NDArray[np.uint8]]) -> tuple[int, ...]:
    detector.batch(frames)
    return tuple(detector.timings_ns[stage] for stage in _STAGES)
