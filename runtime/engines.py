"""Which engine runs a bundle on this machine: of those that give the golden scores, the preferred or a clearly faster one."""

import functools
import itertools
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from flawline.runtime.backends import BACKENDS, preferred_engine, version
from flawline.runtime.backends.selection import Candidate, Trial, select
from flawline.runtime.backends.trial_process import run_apart
from flawline.runtime.bundle import Bundle, Golden
from flawline.runtime.bundle.contents import gaussians
from flawline.runtime.bundle.manifest import ClassifierManifest, ReconstructionManifest
from flawline.runtime.classifier_scorer import ClassifierScorer
from flawline.runtime.errors import EngineError, InputError
from flawline.runtime.frame_scorer import FrameScorer
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.padim import PadimScoring
from flawline.runtime.gpu.reconstruction import ReconstructionScoring
from flawline.runtime.gpu.scorer import GpuScorer
from flawline.runtime.gpu.scoring import Scoring
from flawline.runtime.precisions import ENGINES, GPU_ENGINES
from flawline.runtime.reconstruction_scorer import ReconstructionScorer
from flawline.runtime.scorer import Scorer
from flawline.runtime.verification import golden_errors

_TRIAL_FRAMES = 9

AnyScorer = FrameScorer | GpuScorer


def open_scorer(bundle: Bundle, backend: str, *, threads: int, batch: int = 1) -> AnyScorer:
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
    if backend not in BACKENDS and not is_on_gpu(backend):
        on_gpu = sorted({engine for engines in GPU_ENGINES.values() for engine in engines})
        raise InputError(f"backend '{backend}' is unknown; expected auto or one of {', '.join((*BACKENDS, *on_gpu))}")
    if is_on_gpu(backend):
        return _open_gpu_scorer(bundle, batch)
    return open_cpu_scorer(bundle, backend, threads=threads, batch=batch)


def open_cpu_scorer(bundle: Bundle, backend: str, *, threads: int, batch: int = 1) -> FrameScorer:
    """Opens the scorer of a bundle in an engine on the CPU.

    Args:
        bundle: In the precision that is wanted.
        backend: Name of the engine.
        threads: Threads of the engine and of the kernel.
        batch: Most frames that are scored at once.

    Raises:
        See `Detector.open`.
    """
    manifest = bundle.manifest
    if isinstance(manifest, ReconstructionManifest):
        return ReconstructionScorer(bundle.features, manifest, backend=backend, threads=threads, batch=batch)
    model = gaussians(manifest, bundle.statistics)
    if isinstance(manifest, ClassifierManifest):
        thresholds = bundle.statistics["class_thresholds"]
        return ClassifierScorer(
            bundle.features, manifest, model, thresholds, backend=backend, threads=threads, batch=batch
        )
    return Scorer(bundle.features, manifest, model, backend=backend, threads=threads, batch=batch)


def is_on_gpu(backend: str) -> bool:
    """Whether the engine of that name runs on a GPU."""
    return any(backend in engines for engines in GPU_ENGINES.values())


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

    Each is tried in a process of its own where that can be had, see `run_apart`, so that this one need not hold them all.
    An engine that must be built takes minutes, and is tried only where it has been. Golden scores are of the map that the
    bundle was written with; if another is to be made, each engine must make that too, with finite scores, and is timed at it.

    Args:
        bundle: In the precision and with the map that are wanted.
        threads: Threads of the engine and of the kernel.
        batch: Frames that are scored at once.

    Returns:
        One candidate per engine; which of those that give the golden scores and maps is chosen, `selection` says.
    """
    asked, bundle = bundle, bundle.with_map(None)

    def trial(engine: str) -> Trial:
        if is_on_gpu(engine):
            _require_built(bundle, batch)
            if asked.manifest != bundle.manifest:
                _require_built(asked, batch)
        errors: list[float] = []
        times = []
        for golden, score, anomaly_map, time_ns in _scored(bundle, engine, threads=threads, batch=batch):
            errors.extend(golden_errors(score, anomaly_map, golden))
            times.append(time_ns)
        if asked.manifest != bundle.manifest:
            # Another part of the network makes that map, which this engine may not take, or not as fast.
            times = [time_ns for *_, time_ns in _scored(asked, engine, threads=threads, batch=batch)]
        return Trial(max(errors), bundle.manifest.golden.relative_tolerance, sorted(times)[len(times) // 2] / 1e6)

    precision = bundle.manifest.network.precision
    on_gpu = () if isinstance(bundle.manifest, ClassifierManifest) else GPU_ENGINES.get(precision, ())
    engines = (*ENGINES[precision], *on_gpu)
    if sum(version(engine) is not None for engine in engines) < 2:
        # This process is to hold it anyway.
        return select(engines, trial, version)
    return select(engines, lambda engine: run_apart(functools.partial(trial, engine)), version)


def _scored(
    bundle: Bundle, engine: str, *, threads: int, batch: int
) -> Iterator[tuple[Golden, float, npt.NDArray[np.float32], float]]:
    """Golden frames with their scores and maps, float32 (h, w), by an engine, and the nanoseconds that each took."""
    with open_scorer(bundle, engine, threads=threads, batch=batch) as scorer:
        for golden in itertools.islice(itertools.cycle(bundle.golden), _TRIAL_FRAMES):
            start = time.perf_counter_ns()
            scores, maps = scorer.batch([golden.frame] * batch)
            yield golden, scores[0], maps[0], (time.perf_counter_ns() - start) / batch


def _open_gpu_scorer(bundle: Bundle, batch: int) -> GpuScorer:
    from flawline.runtime.gpu.tensorrt_engines import tensorrt_opener

    precision = bundle.manifest.network.precision
    if precision not in GPU_ENGINES:
        capable = " or ".join(ENGINES[precision])
        raise InputError(f"tensorrt does not compute in precision '{precision}'; take --backend {capable}")
    if isinstance(bundle.manifest, ClassifierManifest):
        capable = " or ".join(ENGINES[precision])
        raise InputError(f"{bundle.path} is of a classifier, which runs on a CPU; take --backend {capable}")
    scoring: Scoring
    if isinstance(bundle.manifest, ReconstructionManifest):
        scoring = ReconstructionScoring(bundle.manifest)
    else:
        scoring = PadimScoring(bundle.manifest, gaussians(bundle.manifest, bundle.statistics))
    device = Device()
    return GpuScorer(device, scoring, tensorrt_opener(bundle, device, batch=batch), batch=batch)


def _require_built(bundle: Bundle, batch: int) -> None:
    from flawline.runtime.gpu.tensorrt_engines import kept_engine, key_of

    reasons: list[str] = []
    if kept_engine(key_of(bundle, Device(), batch), say=reasons.append) is None:
        command = f"flawline export BUNDLE --to engine{_map_option(bundle)}"
        raise EngineError(reasons[0] if reasons else f"none was built for this device yet; `{command}` does")


def _map_option(bundle: Bundle) -> str:
    """What makes a command take the map in use where that is not the bundle's own."""
    manifest, own = bundle.manifest, bundle.with_map(None).manifest
    if not isinstance(manifest, ReconstructionManifest) or manifest == own:
        return ""
    return f" --map {manifest.reconstruction.map}"
