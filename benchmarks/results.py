"""What every benchmark writes around its numbers: what they mean, how they were made, and where."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flawline.benchmarks.environment import Environment
from flawline.benchmarks.timing import Timing


def result(
    benchmark: str,
    environment: Environment,
    *,
    settings: Mapping[str, Any],
    meaning: Mapping[str, str],
    results: Mapping[str, Any],
    null: Timing | None = None,
) -> dict[str, Any]:
    """Puts a benchmark's numbers into one object for JSON.

    Args:
        benchmark: Name of the benchmark.
        environment: The machine before the measurement.
        settings: Everything that was chosen.
        meaning: What each number means, by key.
        results: The numbers; units are in the keys.
        null: Timing of an empty call, for benchmarks of time.
    """
    return {
        "benchmark": benchmark,
        "environment": asdict(environment) | {"warnings": environment.warnings},
        "settings": dict(settings),
        "meaning": dict(meaning),
        "null_call": None if null is None else asdict(null),
        "results": dict(results),
    }


def heading(environment: Environment, null: Timing | None = None) -> str:
    """The lines above a table: the machine, the null case, and why numbers may be unstable."""
    lines = [environment.summary()]
    if null is not None:
        lines.append(f"null call: {null.p50_ns} ns (p50), {null.max_ns} ns (max); included in every time")
    lines += [f"warning: results may be unstable: {reason}" for reason in environment.warnings]
    return "\n".join(lines)


def unstable(timings: Mapping[str, Timing]) -> list[str]:
    """Warnings of timings that may be unstable, one line each."""
    return [
        f"warning: {name} may be unstable: {timing.unstable}" for name, timing in timings.items() if timing.unstable
    ]
