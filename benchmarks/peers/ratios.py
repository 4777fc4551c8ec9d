"""How many times a peer takes what Flawline takes: peer over ours, so that above 1 is in our favour."""

from collections.abc import Sequence
from dataclasses import dataclass

from flawline.benchmarks.peers.cases import NULL, OURS
from flawline.benchmarks.peers.comparison import Measured


@dataclass(frozen=True)
class Ratio:
    """One case of a peer over one of ours, both with the same threads in the same run.

    Attributes:
        ours: Name of our case.
        peer: Name of the peer's.
        threads: Threads of every pool.
        p50: Of the median latencies.
        p99: Of the 99th percentiles.
        cpu: Of processor times per frame.
        memory: Of peak memories.
        files: Of the deployed files.
        peer_is_float: Whether the peer computes in 32-bit floating point throughout.
        peer_is_constant: Whether the peer gave every frame the same score.
        unstable: Whether one of the two timings may be unstable.
    """

    ours: str
    peer: str
    threads: int
    p50: float
    p99: float
    cpu: float
    memory: float
    files: float
    peer_is_float: bool
    peer_is_constant: bool
    unstable: bool


def ratios(measured: Sequence[Measured]) -> list[Ratio]:
    """Every peer's case over every case of ours that ran with as many threads."""
    ours = [one for one in measured if one.case.party == OURS]
    peers = [one for one in measured if one.case.party not in (OURS, NULL)]
    return [_ratio(one, peer) for one in ours for peer in peers if one.threads == peer.threads]


def fastest(found: Sequence[Ratio], *, only_float: bool) -> Ratio | None:
    """The ratio to the peer's case with the least median; None if there is none.

    Args:
        found: Ratios to one case of ours with one number of threads.
        only_float: Leave out the reduced precisions of peers.
    """
    chosen = [one for one in found if one.peer_is_float or not only_float]
    return min(chosen, key=lambda one: one.p50, default=None)


def _ratio(ours: Measured, peer: Measured) -> Ratio:
    return Ratio(
        ours=ours.case.name,
        peer=peer.case.name,
        threads=ours.threads,
        p50=peer.latency.p50_ns / ours.latency.p50_ns,
        p99=peer.latency.p99_ns / ours.latency.p99_ns,
        cpu=peer.cpu_ns / max(1, ours.cpu_ns),
        memory=peer.peak_memory_bytes / ours.peak_memory_bytes,
        files=peer.case.deployed_bytes / ours.case.deployed_bytes,
        peer_is_float=peer.case.is_float,
        peer_is_constant=peer.distinct_scores <= 1,
        unstable=bool(ours.latency.unstable or peer.latency.unstable),
    )
