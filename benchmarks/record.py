"""What every benchmark writes around its numbers: what they mean, how they were made, and where."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from flawline.benchmarks.environment import Environment
from flawline.benchmarks.timing import Timing
from flawline.runtime.bundle import AnyManifest


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


def flat(measured: Any, part: str) -> dict[str, Any]:
    """A dataclass for JSON, with the fields of one of its parts, a dataclass as well, among its own."""
    fields: dict[str, Any] = asdict(measured)
    own: dict[str, Any] = fields.pop(part)
    return own | fields


def detector_facts(manifest: AnyManifest) -> dict[str, Any]:
    """What a measured detector is, for the settings of a benchmark. Files are known by name and hash, never by path."""
    parts = ("network", "input", "map", "projection", "gaussian", "reconstruction", "classifier", "fit")
    return {part: msgspec.to_builtins(getattr(manifest, part)) for part in parts if hasattr(manifest, part)}


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
