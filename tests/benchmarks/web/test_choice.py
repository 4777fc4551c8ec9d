"""Which variant is chosen, and what is tried on the way."""

from flawline.benchmarks.web.choice import Variant, choose, without_one
from flawline.benchmarks.web.features import Conditions

START = Variant(12.0, 32, Conditions(), (0, 1, 2))


def test_parts_are_changed_one_after_the_other_and_what_is_better_stays():
    gains = {"smoothing_px": {4.0: 0.2, 0.0: 0.1}, "margin_px": {128: -0.1}, "layers": {(0, 1): 0.05}}

    def measure(variant: Variant) -> float:
        return 0.5 + sum(gain.get(getattr(variant, part), 0.0) for part, gain in gains.items())

    others = {"smoothing_px": (0.0, 4.0), "margin_px": (128,), "layers": [(1, 2), (0, 1)]}
    choice = choose(START, others, measure)
    assert choice.variant == Variant(4.0, 32, Conditions(), (0, 1))
    assert [tried.part for tried in choice.tried] == ["start"] + 2 * ["smoothing_px"] + ["margin_px"] + 2 * ["layers"]
    assert choice.tried[3].variant == Variant(4.0, 128, Conditions(), (0, 1, 2))
    assert max(tried.auroc for tried in choice.tried) == measure(choice.variant)


def test_the_start_stays_where_nothing_is_better_and_is_measured_once():
    measured = []

    def measure(variant: Variant) -> float:
        measured.append(variant)
        return 0.5

    choice = choose(START, {"smoothing_px": (12.0, 4.0), "conditions": [Conditions(shrink=2)]}, measure)
    assert choice.variant == START
    assert measured.count(START) == 1
    assert len(measured) == 3


def test_a_network_of_one_layer_has_none_to_leave_out():
    assert without_one(1) == []
    assert without_one(3) == [(1, 2), (0, 2), (0, 1)]
