"""The paper's claims, of outcomes whose figures are known."""

from dataclasses import replace

import pytest

from flawline.benchmarks.paper.center_loss_claims import Claim, claims
from flawline.benchmarks.paper.center_loss_scores import Detection
from flawline.benchmarks.paper.center_loss_study import Outcome
from flawline.benchmarks.paper.center_loss_text import describe

# F1 by lambda, as the paper has them: classification, semi-supervised, supervised.
AS_IN_THE_PAPER = {0.0: (0.986, 0.90, 0.99), 0.1: (0.990, 0.94, 0.97), 1.0: (0.989, 0.95, 0.96)}
EXPERIMENTS = ("MNIST", "MNIST 1 to 9")


def measured(value: float) -> Detection:
    return Detection(f1_normal=value, f1_anomalous=value, rejected=0.025, missed=1 - value, auroc=value)


def outcomes(figures: dict[float, tuple[float, float, float]], seed: int = 0) -> list[Outcome]:
    return [
        Outcome(
            experiment=name,
            network="lenet",
            anomalies="other images",
            center_weight=center_weight,
            seed=seed,
            trained=1000,
            head_trained=500,
            normal=100,
            anomalous=50,
            epochs=((0.5, 0.4), (0.3, 0.35)),
            best_epoch=2,
            accuracy=classification,
            f1=classification,
            semi_supervised=measured(semi_supervised),
            percentiles_auroc=semi_supervised,
            supervised=measured(supervised),
            transfer={"other images -> more": measured(0.5)},
            norm_normal=2.0,
            norm_anomalous=1.0,
        )
        for name in EXPERIMENTS
        for center_weight, (classification, semi_supervised, supervised) in figures.items()
    ]


def titled(found: list[Claim], words: str) -> list[Claim]:
    chosen = [one for one in found if words in one.title]
    assert chosen
    return chosen


def test_figures_like_the_papers_are_as_in_the_paper() -> None:
    found = claims(outcomes(AS_IN_THE_PAPER))
    assert len(found) == 17
    assert {one.verdict for one in found} == {"as in the paper"}
    assert not any(one.reason for one in found)
    assert "Every claim is as in the paper." in describe(outcomes(AS_IN_THE_PAPER))


@pytest.mark.parametrize(
    ("changed", "words", "ours", "reason"),
    [
        ({1.0: (0.98, 0.95, 0.96)}, "classification F1 of lenet", "0.9800 to 0.9900", "up to 0.0052 below"),
        ({1.0: (0.98, 0.95, 0.96)}, "lowers the classification F1", "0.0060", "the largest loss is at lambda 1"),
        ({0.0: (0.995, 0.9, 0.99)}, "improves the classification F1", "-0.0050, -0.0050", "MNIST: F1 by lambda 0: 0.9950, 0.1: 0.9900"),
        ({0.0: (0.986, 0.975, 0.99)}, "by more than 0.03", "0 of 2", "F1 is 0.975, so that it could not rise by more"),
        ({0.0: (0.986, 0.96, 0.99)}, "center loss raises F1", "-0.0100, -0.0100", "anomalous ones missed from 0.040 to 0.050"),
        ({0.0: (0.986, 0.96, 0.99)}, "the best lambda is", "0, 0", "normal images rejected go from 0.025 to 0.025"),
        ({1.0: (0.989, 0.95, 0.995)}, "best without center loss", "with it at best +0.0050, +0.0050", "0: 0.9900, 0.1: 0.9700"),
        ({1.0: (0.989, 0.95, 0.75)}, "lowers F1 by at most", "0.2400", "say less"),
        ({1.0: (0.989, 0.97, 0.96)}, "supervised is above", "-0.0100 to +0.0900", "not so: MNIST 1 to 9, lambda 1; MNIST, lambda 1"),
        ({1.0: (0.989, 0.89, 0.96)}, "largest lambda raises", "-0.0100, -0.0100", "0.9000 without center loss, 0.8900 at lambda 1"),
        ({1.0: (0.989, 0.95, 0.995)}, "largest lambda lowers", "+0.0050, +0.0050", "0.9900 without"),
    ],
)  # fmt: skip
def test_a_figure_that_differs_is_told_with_its_reason(
    changed: dict[float, tuple[float, float, float]], words: str, ours: str, reason: str
) -> None:
    figures = outcomes(AS_IN_THE_PAPER | changed)
    for one in titled(claims(figures), words):
        assert (one.verdict, one.ours) == ("not as in the paper", (ours,))
        assert reason in one.reason
        assert f"- {one.title}" in describe(figures)


def test_seeds_that_disagree_are_told() -> None:
    apart = AS_IN_THE_PAPER | {0.0: (0.986, 0.96, 0.99)}
    found = claims([*outcomes(AS_IN_THE_PAPER, seed=3), *outcomes(apart, seed=4)])
    for one in titled(found, "center loss raises F1"):
        assert one.verdict == "depends on the seed"
        assert one.holds == (True, False)
        assert len(one.ours) == 2
    text = describe([*outcomes(AS_IN_THE_PAPER, seed=3), *outcomes(apart, seed=4)])
    assert "mean ± standard deviation over 2 seeds" in text
    assert "0.9300 ± 0.0424" in text


def test_each_f1_score_is_of_its_own_positives() -> None:
    figures = [
        replace(one, semi_supervised=replace(one.semi_supervised, f1_anomalous=0.5))
        for one in outcomes(AS_IN_THE_PAPER)
    ]
    verdicts = {one.positive: one.verdict for one in titled(claims(figures), "center loss raises F1")}
    assert verdicts == {"normal": "as in the paper", "anomalous": "not as in the paper"}


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_one_lambda_alone_says_nothing_of_lambda(kept: float) -> None:
    found = claims([one for one in outcomes(AS_IN_THE_PAPER) if one.center_weight == kept])
    assert {one.title for one in found} == {"classification F1 of lenet", "supervised is above semi-supervised"}


def test_prevalence_and_what_a_trivial_test_reaches_are_said() -> None:
    text = describe(outcomes(AS_IN_THE_PAPER))
    assert "100 normal ones (prevalence 0.667) and 50 anomalous ones (0.333)" in text
    assert "accepts everything has F1 0.800" in text
    assert "rejects everything 0.500" in text
    assert "list of lambdas is lost" in text
    assert "transfer: second head trained and tested on different anomalies, other images -> more" in text
