"""Which engine runs a bundle on this machine: of those that give the golden scores, the preferred or a clearly faster one."""

import itertools
import time

from flawline.runtime.backends import preferred_engine, version
from flawline.runtime.backends.selection import Candidate, Trial, select
from flawline.runtime.bundle import Bundle
from flawline.runtime.bundle.contents import gaussians
from flawline.runtime.errors import EngineError
from flawline.runtime.precisions import ENGINES
from flawline.runtime.scorer import Scorer
from flawline.runtime.verification import golden_errors

_TRIAL_FRAMES = 9


def open_scorer(bundle: Bundle, backend: str, *, threads: int, batch: int = 1) -> Scorer:
    """Opens the scorer of a bundle in the engine of that name.

    Args:
        bundle: In the precision that is wanted.
        backend: Name of the engine, or `auto` for the one that `fastest_engine` finds.
        threads: Threads of the engine and of the kernel.
        batch: Most frames that are scored at once.

    Raises:
        See `Detector.open`.
    """
    if backend == "auto":
        backend = fastest_engine(bundle, threads=threads, batch=batch)
    return Scorer(
        bundle.features,
        bundle.manifest,
        gaussians(bundle.manifest, bundle.statistics),
        backend=backend,
        threads=threads,
        batch=batch,
    )


def fastest_engine(bundle: Bundle, *, threads: int, batch: int = 1) -> str:
    """The engine that `auto` means for this bundle on this machine.

    Args:
        bundle: In the precision that is wanted.
        threads: Threads of the engine and of the kernel.
        batch: Frames that are scored at once.

    Raises:
        EngineError: Engines run the network, and none of them gives the golden scores.
        FlawlineError: What opening the preferred engine raises, if none can be opened.
    """
    tried = try_engines(bundle, threads=threads, batch=batch)
    for candidate in tried:
        if candidate.verdict == "chosen":
            return candidate.name
    # If it cannot be opened at all, that is what there is to say.
    open_scorer(bundle, preferred_engine(bundle.manifest.network.precision), threads=threads, batch=batch).close()
    reasons = "; ".join(f"{candidate.name}: {candidate.detail}" for candidate in tried)
    raise EngineError(
        f"no engine gives the golden scores of {bundle.path} ({reasons}); --backend takes one all the same"
    )


def try_engines(bundle: Bundle, *, threads: int, batch: int = 1) -> list[Candidate]:
    """Runs the golden frames through every engine that computes in the bundle's precision.

    Args:
        bundle: In the precision that is wanted.
        threads: Threads of the engine and of the kernel.
        batch: Frames that are scored at once.

    Returns:
        One candidate per engine; which of those that give the golden scores and maps is chosen, `selection` says.
    """

    def trial(engine: str) -> Trial:
        with open_scorer(bundle, engine, threads=threads, batch=batch) as scorer:
            errors: list[float] = []
            times = []
            for golden in itertools.islice(itertools.cycle(bundle.golden), _TRIAL_FRAMES):
                start = time.perf_counter_ns()
                scores, maps = scorer.batch([golden.frame] * batch)
                times.append((time.perf_counter_ns() - start) / batch)
                errors.extend(golden_errors(scores[0], maps[0], golden))
        return Trial(max(errors), bundle.manifest.golden.relative_tolerance, sorted(times)[len(times) // 2] / 1e6)

    return select(ENGINES[bundle.manifest.network.precision], trial, version)
