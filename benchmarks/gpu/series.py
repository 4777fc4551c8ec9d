"""Times of launches that follow each other at once, as a stream of frames makes them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from flawline.benchmarks.gpu.session import Session
from flawline.benchmarks.timing import Timing, rotation
from flawline.runtime.gpu.graph import Events, Graph
from flawline.runtime.gpu.module import Kernel

Key = TypeVar("Key", bound=Hashable)
_WARMUP = 3
# What starting a graph takes is then little of a launch's share.
_LEAST_LAUNCHES = 64


class Series:
    """Launches in a CUDA graph, so that the GPU never waits for Python.

    Args:
        opened: The GPU.
        kernels: What is launched, one after the other.
    """

    def __init__(self, opened: Session, kernels: Sequence[Kernel]) -> None:
        self._stream, self._count = opened.stream, len(kernels)
        self._events = Events(opened.device.driver, opened.stream, 2)

        def enqueue() -> None:
            for kernel in kernels:
                kernel.enqueue(opened.stream)

        self._graph = Graph(opened.device.driver, opened.stream, enqueue)

    def run_ns(self) -> float:
        """Runs all of them: nanoseconds per launch, gaps included."""
        self._events.record(0)
        self._graph.launch()
        self._events.record(1)
        self._stream.synchronize()
        (elapsed_ns,) = self._events.elapsed_ns()
        return elapsed_ns / self._count

    def close(self) -> None:
        """Frees graph and events."""
        self._graph.close()
        self._events.close()


def alternate(opened: Session, cases: Mapping[Key, Sequence[Kernel]], *, rounds: int) -> dict[Key, Timing]:
    """Times several cases in turn, each as a series.

    Args:
        opened: The GPU.
        cases: What each case launches, over and over where it is little.
        rounds: Timed series of each.

    Returns:
        Nanoseconds per launch. A sample is the mean of a series: percentiles are of series, not of launches.
    """
    samples: dict[Key, list[int]] = {key: [] for key in cases}
    series: dict[Key, Series] = {}
    try:
        for key, kernels in cases.items():
            series[key] = Series(opened, [*kernels] * -(-_LEAST_LAUNCHES // len(kernels)))
        warmup = min(_WARMUP, rounds)
        for index, key in rotation(cases, warmup + rounds):
            elapsed_ns = series[key].run_ns()
            if index >= warmup:
                samples[key].append(round(elapsed_ns))
    finally:
        for one in series.values():
            one.close()
    return {key: Timing.of(values) for key, values in samples.items()}
