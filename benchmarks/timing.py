"""Timings with their tail: percentiles in nanoseconds, a null case, alternation, and a word when they are unstable."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

NULL_RUNS = 1000
Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """What one case took.

    Attributes:
        runs: Number of timed calls.
        min_ns: Shortest.
        p50_ns: Median; percentiles are nearest-rank, so each is a run that happened.
        p90_ns: 90th percentile.
        p99_ns: 99th percentile; with fewer than 100 runs it is the maximum.
        max_ns: Longest; nothing is cut away.
        mean_ns: Arithmetic mean.
        unstable: Why the result may be unstable, or None.
    """

    runs: int
    min_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int
    mean_ns: float
    unstable: str | None = None

    @classmethod
    def of(cls, samples_ns: ArrayLike) -> "Timing":
        """Summarises the durations of one case.

        Args:
            samples_ns: int64 (runs,) durations in nanoseconds, at least one.

        Raises:
            ValueError: There is no sample.
        """
        samples = np.sort(np.asarray(samples_ns, dtype=np.int64))
        if not samples.size:
            raise ValueError("no samples: expected at least one duration")
        ranks = (int(np.ceil(share * samples.size)) - 1 for share in (0.5, 0.9, 0.99))
        p50, p90, p99 = (int(samples[rank]) for rank in ranks)
        return cls(
            samples.size, int(samples[0]), p50, p90, p99, int(samples[-1]), float(samples.mean()), _instability(samples)
        )

    def ms(self) -> tuple[str, str, str, str]:
        """p50, p90, p99 and maximum in milliseconds, as text for a table."""
        p50, p90, p99, longest = (
            f"{value / 1e6:.3f}" for value in (self.p50_ns, self.p90_ns, self.p99_ns, self.max_ns)
        )
        return p50, p90, p99, longest


def alternate(
    cases: Mapping[Key, Callable[[], object]], *, rounds: int, warmup: int = 3, prime: int = 0
) -> dict[Key, Timing]:
    """Times several cases in one run, in turn, so that a drift of the machine meets all of them alike.

    Each round calls every case once and starts with another one, since a call finds the caches as its predecessor left
    them. Ratios between cases are only meaningful among timings of one call of this function.

    Args:
        cases: Name and function of each case.
        rounds: Timed rounds, at least one.
        warmup: Rounds that are not timed.
        prime: Untimed calls of the same case before each timed one, so that it finds the caches as it left them.

    Returns:
        One timing per case, under its name.
    """
    samples: dict[Key, list[int]] = {name: [] for name in cases}
    for index, name in rotation(cases, warmup + rounds):
        for _ in range(prime):
            cases[name]()
        start = time.perf_counter_ns()
        cases[name]()
        taken = time.perf_counter_ns() - start
        if index >= warmup:
            samples[name].append(taken)
    return {name: Timing.of(values) for name, values in samples.items()}


def rotation(items: Iterable[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Every item once per round, each round from another one on.

    Args:
        items: What takes turns.
        rounds: Number of rounds.

    Yields:
        Index of the round, and the item whose turn it is.
    """
    order = list(items)
    for index in range(rounds):
        shift = index % len(order)
        yield from ((index, item) for item in order[shift:] + order[:shift])


def null_overhead() -> Timing:
    """What measuring itself costs: the timing of a function that does nothing."""
    return alternate({"null": lambda: None}, rounds=NULL_RUNS)["null"]


def _instability(samples: np.ndarray) -> str | None:
    median = float(np.median(samples))
    spread = float(np.percentile(samples, 90) - np.percentile(samples, 10))
    if samples.size < 20:
        return f"only {samples.size} runs"
    if spread > 0.2 * median:
        return f"the middle 80 % of the runs spread over {100 * spread / median:.0f} % of the median"
    return None
