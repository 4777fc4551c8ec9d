"""Cases of the comparison as data: who scores, with which engine and precision, from which files."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flawline.benchmarks.costs.footprint import bundle_bytes
from flawline.calibration.statistics import FactorType
from flawline.runtime.bundle import read
from flawline.runtime.precisions import Precision

OURS = "flawline"
NULL = "null"
Execution = tuple[Precision, str]
"""One of our precisions, and the engine that executes it."""

_WORKERS = "flawline.benchmarks.peers.workers"


@dataclass(frozen=True)
class Case:
    """One way to score frames.

    Attributes:
        party: "flawline" or the name of the peer.
        engine: What runs the network.
        precision: Precision of the network, as the engine calls it.
        files: What the worker opens, the first one first.
        command: Interpreter and module of the worker.
        deployed_bytes: Size of all files that a device needs, without libraries.
        environment: Variables of the worker on top of those that set threads.
        factors: Type of our stored factors; None for a peer.
        label: What tells this case from another of the same party, engine, precision and factors.
    """

    party: str
    engine: str
    precision: str
    files: tuple[Path, ...]
    command: tuple[str, ...]
    deployed_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict)
    factors: FactorType | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """As it stands in tables."""
        factors = f"{self.factors} factors" if self.factors else ""
        network = " ".join(part for part in (self.party, self.engine, self.precision) if part)
        return ", ".join(part for part in (network, factors, self.label) if part)

    @property
    def is_float(self) -> bool:
        """Whether everything is computed in 32-bit floating point."""
        return self.precision in ("fp32", "f32")


@dataclass(frozen=True)
class Failure:
    """A case, or a whole peer, that could not be measured.

    Attributes:
        name: Which.
        reason: Why, in one line.
    """

    name: str
    reason: str


def our_cases(bundles: Sequence[Path], executions: Sequence[Execution]) -> tuple[list[Case], list[Failure]]:
    """Every bundle in every precision and engine.

    Args:
        bundles: Folders of bundles.
        executions: Precisions with their engines.

    Returns:
        Cases, and the precisions that a bundle does not hold.

    Raises:
        BundleError: A bundle is damaged.
    """
    cases: list[Case] = []
    failures: list[Failure] = []
    for path in bundles:
        bundle, label = read(path), path.name if len(bundles) > 1 else ""
        for precision, engine in executions:
            if precision not in bundle.precisions:
                held = ", ".join(bundle.precisions)
                name = f"{OURS} {engine} {precision}"
                failures.append(Failure(name, f"{path.name} does not hold {precision}; it holds {held}"))
                continue
            cases.append(
                Case(
                    party=OURS,
                    engine=engine,
                    precision=precision,
                    files=(path.resolve(),),
                    command=(sys.executable, "-m", f"{_WORKERS}.flawline_score"),
                    deployed_bytes=bundle_bytes(bundle, precision),
                    factors=bundle.select(precision).padim.gaussian.factors,
                    label=label,
                )
            )
    return cases, failures


def null_case() -> Case:
    """A worker that scores nothing: what the protocol costs."""
    return Case(NULL, "", "", (), (sys.executable, "-m", f"{_WORKERS}.null_score"), 0)


def read_offers(
    path: Path, party: str, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[Case], list[Failure], dict[str, str], list[str]]:
    """Reads the `cases.json` that a peer's fit wrote.

    Returns:
        Cases, failures, versions of the peer's libraries and notes.
    """
    offers = json.loads(path.read_text(encoding="utf-8"))
    return (
        list(_offered(offers["cases"], party, command, environment)),
        [Failure(f"{party} {one['engine']} {one['precision']}", one["reason"]) for one in offers["failures"]],
        offers["versions"],
        offers["notes"],
    )


def _offered(
    offers: Sequence[Mapping[str, Any]], party: str, command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Case]:
    for one in offers:
        files = tuple(Path(name) for name in one["files"])
        deployed = sum(file.stat().st_size for file in files)
        yield Case(party, one["engine"], one["precision"], files, tuple(command), deployed, environment)
