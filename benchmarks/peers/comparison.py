"""All cases in one run, in alternation: only one works at a time, and a drift of the machine meets all of them alike."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flawline.benchmarks import metrics
from flawline.benchmarks.peers.cases import Case, Failure
from flawline.benchmarks.peers.frames import Frames
from flawline.benchmarks.peers.worker import Turn, Worker, WorkerError
from flawline.benchmarks.timing import Timing
from flawline.runtime.progress import progress


@dataclass(frozen=True)
class Settings:
    """How cases take turns: long enough that most frames follow one of their own, as in a stream.

    Attributes:
        runs: Timed frames per case, at least.
        frames_per_turn: Timed frames of one turn.
        untimed: Frames before them, which find the caches as another case left them. They count for processor time.
        settle_s: Pause at the end of a turn, s: longer than any of the engines' threads spins.
        warmup_turns: Turns that are not counted.
    """

    runs: int = 300
    frames_per_turn: int = 15
    untimed: int = 3
    settle_s: float = 0.03
    warmup_turns: int = 2


@dataclass(frozen=True)
class Measured:
    """One case with one number of threads.

    Attributes:
        case: Which.
        threads: Threads of every pool.
        latency: From a uint8 frame in memory to the verdict.
        cpu_ns: Processor time per frame, all threads, spinning included: median over turns.
        peak_memory_bytes: VmHWM of the process at the end.
        image_auroc: Over the labelled frames; None without labels or with a score that is not finite.
        distinct_scores: Different scores among the frames; 1 means that the score says nothing.
        not_finite: Frames whose score is NaN or infinite.
        rejected: Frames above the case's own threshold.
        frames: Scored frames.
    """

    case: Case
    threads: int
    latency: Timing
    cpu_ns: int
    peak_memory_bytes: int
    image_auroc: float | None
    distinct_scores: int
    not_finite: int
    rejected: int
    frames: int


def compare(
    cases: Sequence[Case],
    frames: Frames,
    settings: Settings,
    *,
    thread_counts: Sequence[int],
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Measured], list[Failure]]:
    """Opens every case, scores every frame with each, then times them in turn; for each number of threads.

    Args:
        cases: What to compare.
        frames: What everybody scores; with the first number of threads, since scores do not depend on it.
        settings: How they take turns.
        thread_counts: Threads of every pool of every case.
        folder: Where workers may write.
        say: Takes each line that tells what is being done.

    Returns:
        What was measured, in the order of the cases, and what failed.
    """
    measured: list[Measured] = []
    failures: list[Failure] = []
    scored: dict[str, list[Turn]] = {}
    for threads in thread_counts:
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for case in cases:
                say(f"opening {case.name}, threads {threads}")
                try:
                    workers[case.name] = stack.enter_context(Worker(case, frames, threads=threads, folder=folder))
                except WorkerError as error:
                    failures.append(Failure(f"{case.name}, threads {threads}", str(error)))
            _score_all(workers, frames, threads, scored, failures)
            turns = _alternate(workers, frames, settings, threads, failures)
            measured += [
                _summary(worker.case, threads, scored[name], turns[name], frames, settings)
                for name, worker in workers.items()
            ]
    return measured, failures


def _score_all(
    workers: dict[str, Worker], frames: Frames, threads: int, scored: dict[str, list[Turn]], failures: list[Failure]
) -> None:
    """Every frame once by whoever has not scored them yet. A worker that fails is taken out."""
    names = [name for name in workers if len(scored.get(name, ())) < frames.count]
    jobs = [(name, index) for name in names for index in range(frames.count)]
    scored.update({name: [] for name in names})
    for name, index in progress(jobs, label=f"scores, threads {threads}", unit="frame"):
        if name in workers:
            _turn(workers, name, [index], 0.0, threads, scored[name], failures)


def _alternate(
    workers: dict[str, Worker], frames: Frames, settings: Settings, threads: int, failures: list[Failure]
) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {name: [] for name in workers}
    rounds = -(-settings.runs // settings.frames_per_turn)
    each = settings.untimed + settings.frames_per_turn
    for index in progress(range(-settings.warmup_turns, rounds), label=f"turns, threads {threads}", unit="round"):
        names = list(workers)
        if not names:
            break
        shift = index % len(names)
        chosen = [(index * settings.frames_per_turn + step) % frames.count for step in range(each)]
        for name in names[shift:] + names[:shift]:
            kept: list[Turn] = turns[name] if index >= 0 else []
            _turn(workers, name, chosen, settings.settle_s, threads, kept, failures)
    return turns


def _turn(
    workers: dict[str, Worker],
    name: str,
    chosen: Sequence[int],
    settle_s: float,
    threads: int,
    turns: list[Turn],
    failures: list[Failure],
) -> None:
    try:
        turns.append(workers[name].score(chosen, settle_s=settle_s))
    except WorkerError as error:
        workers.pop(name).close()
        failures.append(Failure(f"{name}, threads {threads}", str(error)))


def _summary(
    case: Case, threads: int, scored: list[Turn], turns: list[Turn], frames: Frames, settings: Settings
) -> Measured:
    scores = np.concatenate([turn.scores for turn in scored])
    finite = np.isfinite(scores)
    auroc = None if frames.defects is None or not finite.all() else metrics.image_auroc(frames.defects, scores)
    return Measured(
        case=case,
        threads=threads,
        latency=Timing.of(np.concatenate([turn.taken_ns[settings.untimed :] for turn in turns])),
        cpu_ns=int(np.median([turn.cpu_ns / turn.taken_ns.size for turn in turns])),
        peak_memory_bytes=max(turn.peak_memory_bytes for turn in turns),
        image_auroc=auroc,
        distinct_scores=len(np.unique(scores[finite])),
        not_finite=int(np.count_nonzero(~finite)),
        rejected=int(sum(turn.rejected.sum() for turn in scored)),
        frames=scores.size,
    )
