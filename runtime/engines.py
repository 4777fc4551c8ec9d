"""Which engine runs a bundle on this machine: the fastest that is installed and gives the golden scores."""

import itertools
import time

import numpy as np

from flawline.runtime.backends import installed, version
from flawline.runtime.backends.selection import Candidate, Trial, select
from flawline.runtime.bundle import Bundle
from flawline.runtime.bundle.contents import gaussians
from flawline.runtime.errors import EngineError
from flawline.runtime.precisions import ENGINES
from flawline.runtime.scorer import Scorer

_TRIAL_FRAMES = 9


def open_scorer(bundle: Bundle, backend: str, *, threads: int, batch: int = 1) -> Scorer:
    """Opens the scorer of a bundle in the engine of that name.

    Args:
        bundle: In the precision that is wanted.
        backend: Name of the engine, or `auto` for the fastest that is installed and gives the golden scores.
        threads: Threads of the engine and of the kernel.
        batch: Most frames that are scored at once.

    Raises:
        See `Detector.open`.
    """
    if backend == "auto":
        backend = fastest_engine(bundle, threads=threads)
    return Scorer(
        bundle.features,
        bundle.manifest,
        gaussians(bundle.manifest, bundle.statistics),
        backend=backend,
        threads=threads,
        batch=batch,
    )


def fastest_engine(bundle: Bundle, *, threads: int) -> str:
    """The engine that `auto` means for this bundle on this machine.

    Args:
        bundle: In the precision that is wanted.
        threads: Threads of the engine and of the kernel.

    Raises:
        EngineError: Engines run the network, and none of them gives the golden scores.
    """
    tried = try_engines(bundle, threads=threads)
    for candidate in tried:
        if candidate.verdict == "chosen":
            return candidate.name
    ran = [candidate for candidate in tried if candidate.worst_relative_error is not None]
    if not ran:
        # To open it says why it does not run.
        return preferred_engine(bundle)
    reasons = "; ".join(f"{candidate.name} {candidate.version}: {candidate.detail}" for candidate in ran)
    raise EngineError(
        f"no engine gives the golden scores of {bundle.path} ({reasons}); --backend takes one all the same"
    )


def preferred_engine(bundle: Bundle) -> str:
    """The first engine for the bundle's precision that is installed; the first of all if none is."""
    capable = ENGINES[bundle.manifest.network.precision]
    return next((engine for engine in capable if engine in installed()), capable[0])


def try_engines(bundle: Bundle, *, threads: int) -> list[Candidate]:
    """Runs the golden frames through every engine that computes in the bundle's precision.

    Args:
        bundle: In the precision that is wanted.
        threads: Threads of the engine and of the kernel.

    Returns:
        One candidate per engine; the fastest that gives the golden scores is the chosen one.
    """

    def trial(engine: str) -> Trial:
        with open_scorer(bundle, engine, threads=threads) as scorer:
            errors, times = [], []
            for golden in itertools.islice(itertools.cycle(bundle.golden), _TRIAL_FRAMES):
                start = time.perf_counter_ns()
                score, _ = scorer(golden.frame)
                times.append(time.perf_counter_ns() - start)
                errors.append(abs(score - golden.score) / max(golden.score, float(np.finfo(np.float32).tiny)))
        return Trial(max(errors), bundle.manifest.golden.relative_tolerance, sorted(times)[len(times) // 2] / 1e6)

    return select(ENGINES[bundle.manifest.network.precision], trial, version)
