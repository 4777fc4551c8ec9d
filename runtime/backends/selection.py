"""Which engine to take of those that score as they should: the decision, and the reasons for it."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from flawline.runtime.errors import BundleError, FlawlineError, MissingExtraError

# Share of the time of a preferred engine that another must stay below to be chosen before it. Otherwise the choice between
# two that are alike would change from run to run, and the last digits of the scores with it.
_CLEARLY_FASTER = 0.75

Verdict = Literal["chosen", "not faster", "golden frames differ", "not installed", "refused", "fails"]


class Trial(NamedTuple):
    """What an engine did with the golden frames.

    Attributes:
        worst_relative_error: Largest difference to a golden score or map, relative to the score.
        relative_tolerance: How large it may be.
        milliseconds: Median time of a frame.
    """

    worst_relative_error: float
    relative_tolerance: float
    milliseconds: float

    @property
    def passed(self) -> bool:
        """Whether the scores are what they should be; NaN is not."""
        return self.worst_relative_error <= self.relative_tolerance


class Candidate(NamedTuple):
    """An engine and why it was or was not chosen.

    Attributes:
        name: Name of the engine.
        version: Its version, if known.
        verdict: What became of it.
        milliseconds: Median time of a frame, if it ran.
        worst_relative_error: Largest relative error of a golden score, if it ran.
        detail: The reason in a line.
    """

    name: str
    version: str | None
    verdict: Verdict
    milliseconds: float | None
    worst_relative_error: float | None
    detail: str


def select(
    engines: Iterable[str], try_engine: Callable[[str], Trial], version: Callable[[str], str | None]
) -> list[Candidate]:
    """Tries every engine and chooses, of those that pass, the preferred one unless another is clearly faster.

    Args:
        engines: Names of the engines, the preferred first: it is chosen unless another is clearly faster.
        try_engine: Runs the golden frames through an engine and times them; raises what opening and scoring raise.
        version: Gives an engine's version.

    Returns:
        One candidate per engine, in their order. None is chosen if none passes.
    """
    tried = {name: _try(name, try_engine) for name in engines}
    passed = {name: trial for name, trial in tried.items() if isinstance(trial, Trial) and trial.passed}
    best: str | None = None
    for name, trial in passed.items():
        if best is None or trial.milliseconds < _CLEARLY_FASTER * passed[best].milliseconds:
            best = name
    return [_judge(name, version(name), trial, best, passed) for name, trial in tried.items()]


def _try(name: str, try_engine: Callable[[str], Trial]) -> Trial | FlawlineError:
    try:
        return try_engine(name)
    except FlawlineError as error:
        # Without the frames of its traceback, which would keep the engine.
        return error.with_traceback(None)


def _judge(
    name: str, version: str | None, trial: Trial | FlawlineError, best: str | None, passed: dict[str, Trial]
) -> Candidate:
    if isinstance(trial, FlawlineError):
        return Candidate(name, version, _failure(trial), None, None, str(trial))
    measured = (trial.milliseconds, trial.worst_relative_error)
    if best is None or not trial.passed:
        limit = f"relative error {trial.worst_relative_error:.1e}, tolerance {trial.relative_tolerance:.1e}"
        return Candidate(name, version, "golden frames differ", *measured, limit)
    if name == best:
        return Candidate(name, version, "chosen", *measured, f"{trial.milliseconds:.2f} ms per frame")
    times = trial.milliseconds / passed[best].milliseconds
    return Candidate(
        name, version, "not faster", *measured, f"{trial.milliseconds:.2f} ms per frame, {times:.2f} times {best}"
    )


def _failure(error: FlawlineError) -> Verdict:
    if isinstance(error, MissingExtraError):
        return "not installed"
    return "refused" if isinstance(error, BundleError) else "fails"
