"""The fastest engine that scores as it should is chosen, and each of the others has a reason."""

import math

import pytest

from flawline.runtime.backends.selection import Trial, select
from flawline.runtime.errors import EngineError, FlawlineError, MissingExtraError, ResourceError


def choose(**outcomes: Trial | Exception):
    def try_engine(name: str) -> Trial:
        outcome = outcomes[name]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return select(outcomes, try_engine, lambda name: f"{name} 1.0")


def trial(milliseconds: float, error: float = 1e-6, tolerance: float = 1e-3) -> Trial:
    return Trial(error, tolerance, milliseconds)


def verdicts(candidates):
    return {candidate.name: candidate.verdict for candidate in candidates}


def test_the_fastest_that_passes_is_chosen():
    found = choose(slow=trial(9.0), fast=trial(3.0), middle=trial(4.5))
    assert verdicts(found) == {"slow": "not faster", "fast": "chosen", "middle": "not faster"}
    assert [candidate.name for candidate in found] == ["slow", "fast", "middle"]
    assert found[0].detail == "9.00 ms per frame, 3.00 times fast"
    assert found[1].detail == "3.00 ms per frame"
    assert found[1].version == "fast 1.0"
    assert found[1].milliseconds == 3.0


@pytest.mark.parametrize("error", [1.1e-3, math.inf, math.nan])
def test_a_faster_engine_with_other_scores_is_not_chosen(error):
    found = choose(wrong=trial(1.0, error), right=trial(9.0))
    assert verdicts(found) == {"wrong": "golden frames differ", "right": "chosen"}
    assert found[0].detail.endswith("tolerance 1.0e-03")
    assert found[0].milliseconds == 1.0


def test_an_error_as_large_as_the_tolerance_passes():
    assert verdicts(choose(only=trial(1.0, 1e-3))) == {"only": "chosen"}


def test_an_engine_that_is_hardly_faster_does_not_take_the_place_of_a_preferred_one():
    assert verdicts(choose(first=trial(2.0), second=trial(1.6))) == {"first": "chosen", "second": "not faster"}
    assert verdicts(choose(first=trial(2.0), second=trial(1.4))) == {"first": "not faster", "second": "chosen"}


def test_of_two_that_are_equally_fast_the_first_is_chosen():
    assert verdicts(choose(first=trial(2.0), second=trial(2.0))) == {"first": "chosen", "second": "not faster"}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (MissingExtraError("abacus cannot be imported"), "not installed"),
        (EngineError("an operator that nobody knows"), "refused"),
        (FlawlineError("the score is nan"), "fails"),
        (ResourceError("too large"), "fails"),
    ],
)
def test_an_engine_that_cannot_says_why(error, verdict):
    found = choose(broken=error, whole=trial(9.0))
    assert verdicts(found) == {"broken": verdict, "whole": "chosen"}
    assert found[0].detail == str(error)
    assert found[0].milliseconds is None
    assert found[0].worst_relative_error is None


def test_none_is_chosen_if_none_passes():
    found = choose(wrong=trial(1.0, 1.0), missing=MissingExtraError("not there"))
    assert verdicts(found) == {"wrong": "golden frames differ", "missing": "not installed"}


def test_a_mistake_of_ours_is_not_an_engine_that_fails():
    with pytest.raises(ZeroDivisionError):
        choose(broken=ZeroDivisionError(), whole=trial(1.0))
