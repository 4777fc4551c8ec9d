import numpy as np
import pytest

from flawline.benchmarks.jl.comparison import (
    Difference,
    Measured,
    differences,
    fixed,
    sentence,
    sentences,
    spreads,
    t_interval,
    validated,
)
from flawline.benchmarks.jl.sweep import Case, Epsilon

stats = pytest.importorskip("scipy.stats")
SMALL, LARGE = Epsilon(0.01), Epsilon(0.1)


def measured(kind, dimension, values, epsilon=SMALL):
    return [Measured(Case(kind, dimension, seed), epsilon, value, (value, value)) for seed, value in enumerate(values)]


def test_interval_is_that_of_the_t_test():
    values = np.array([0.01, 0.03, 0.02, 0.05, 0.01, 0.04])
    mean, low, high = t_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))


def test_differences_are_paired_by_seed():
    policy = fixed([*measured("select", 8, [0.8, 0.6, 0.7]), *measured("gaussian", 8, [0.85, 0.66, 0.74])], SMALL)
    (found,) = differences(policy)
    assert found.mean == pytest.approx(0.05)
    # Paired, the spread of the seeds cancels: the interval is far narrower than the spread of either.
    assert found.high - found.low == pytest.approx(0.0497, abs=1e-3)
    assert found.winner == "JL"


def test_a_single_seed_gives_no_interval():
    policy = fixed([*measured("select", 8, [0.8]), *measured("gaussian", 8, [0.9])], SMALL)
    assert differences(policy) == []
    assert [one.std for one in spreads(policy)] == [None, None]


def test_epsilon_is_chosen_on_the_half_that_is_not_measured():
    case = Case("gaussian", 8, 0)
    policy = validated(
        [Measured(case, SMALL, 0.5, (0.9, 0.2)), Measured(case, LARGE, 0.5, (0.1, 0.8))],
    )
    # The first half prefers the small epsilon, so the second is measured with it, and the other way round.
    assert policy.values[case] == pytest.approx((0.2 + 0.1) / 2)
    assert policy.chosen["gaussian", 8] == ("0.01", "0.1")


def test_seeds_share_one_epsilon():
    first, second = Case("select", 8, 0), Case("select", 8, 1)
    policy = validated(
        [
            Measured(first, SMALL, 0, (0.9, 0.5)),
            Measured(second, SMALL, 0, (0.2, 0.6)),
            Measured(first, LARGE, 0, (0.6, 0.7)),
            Measured(second, LARGE, 0, (0.6, 0.8)),
        ]
    )
    assert policy.chosen["select", 8] == ("0.1", "0.1")
    assert policy.values == {first: pytest.approx(0.65), second: pytest.approx(0.7)}


def test_sentence_follows_from_the_intervals():
    found = [
        Difference("gaussian", 8, "0.01", 0.03, 0.01, 0.05, 6),
        Difference("gaussian", 100, "0.01", 0.001, -0.01, 0.012, 6),
        Difference("gaussian", 300, "0.01", -0.02, -0.03, -0.01, 6),
    ]
    assert sentence("image AUROC", found) == (
        "image AUROC, epsilon 0.01: JL (gaussian projection) against random selection is better at d = 8 "
        "(+0.030), "
        "is worse at d = 300 (-0.020) and shows no difference at d = 100 (+0.001) "
        "(6 paired seeds, 95 % t intervals, not corrected for 3 comparisons)."
    )


def test_sentence_is_not_written_in_advance():
    better = [*measured("select", 8, [0.7, 0.71, 0.7]), *measured("gaussian", 8, [0.8, 0.81, 0.805])]
    worse = [*measured("select", 8, [0.8, 0.81, 0.805]), *measured("gaussian", 8, [0.7, 0.71, 0.7])]
    assert "is better at d = 8" in sentences("AUROC", [fixed(better, SMALL)])[0]
    assert "is worse at d = 8" in sentences("AUROC", [fixed(worse, SMALL)])[0]
    assert "nothing can be said" in sentence("AUROC", [])
