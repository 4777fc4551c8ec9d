"""Comparisons of maps, by hand, and the directions that the paper claims of them."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from flawline.benchmarks.paper.saliency_claims import claims, most_frequent
from flawline.benchmarks.paper.saliency_comparison import (
    Estimate,
    Group,
    Maps,
    SeedResult,
    compare,
    through_network,
)
from flawline.benchmarks.paper.saliency_text import describe
from flawline.runtime.errors import InputError

PAPERS = {
    "normal": Group(
        images=100,
        mean_squared_error=0.01,
        frequencies={5: [0.2] * 5 + [0.0], 10: [0.0] * 4 + [1.0] + [0.0] * 6},
        majority={5: Estimate(0.26, 0.01), 10: Estimate(0.19, 0.01)},
        distance_px={5: Estimate(8.28, 0.1), 10: Estimate(8.14, 0.1)},
        saliency=Estimate(0.0303, 0.0001),
        squared_saliency=Estimate(0.0071, 0.0001),
        gain=Estimate(0.0232, 0.0001),
        through_network=Estimate(0.5, 0.01),
    ),
    "novel": Group(
        images=90,
        mean_squared_error=0.02,
        frequencies={5: [0.2] * 5 + [0.0], 10: [0.0] * 2 + [1.0] + [0.0] * 8},
        majority={5: Estimate(0.19, 0.01), 10: Estimate(0.08, 0.01)},
        distance_px={5: Estimate(9.25, 0.1), 10: Estimate(8.90, 0.1)},
        saliency=Estimate(0.0305, 0.0001),
        squared_saliency=Estimate(0.0072, 0.0001),
        gain=Estimate(0.0233, 0.0001),
        through_network=Estimate(0.6, 0.01),
    ),
}
"""The paper's own values."""


def seed_of(groups: dict[str, Group], seed: int = 0) -> SeedResult:
    return SeedResult(seed, 1000, ((0.02, 0.021), (0.01, 0.011)), 2, stopped_early=False, groups=groups)


def swapped(groups: dict[str, Group]) -> dict[str, Group]:
    return {"normal": groups["novel"], "novel": groups["normal"]}


def random_maps(count: int, seed: int = 0) -> Maps:
    generator = np.random.default_rng(seed)
    return Maps(*(generator.random((count, 8, 9)).astype(np.float32) for _ in Maps._fields))


def error_alone(error: npt.NDArray[np.float32]) -> Maps:
    """Maps of a network that adds nothing to the gradient: the saliency is 2 / n times the root of the error."""
    return Maps(error, error, (2 / error[0].size * np.sqrt(error) / 255).astype(np.float32))


def test_maps_of_a_network_that_adds_nothing_agree_wholly() -> None:
    error = (255**2 * np.random.default_rng(0).random((7, 8, 9))).astype(np.float32)
    group = compare(error_alone(error))
    assert group.images == 7
    assert group.frequencies == {5: [0, 0, 0, 0, 0, 1], 10: [0] * 10 + [1]}
    assert group.majority == {5: Estimate(1, 0), 10: Estimate(1, 0)}
    assert group.distance_px == {5: Estimate(0, 0), 10: Estimate(0, 0)}
    assert group.mean_squared_error == pytest.approx(error.mean() / 255**2, rel=1e-6)
    assert group.squared_saliency.mean == pytest.approx(0, abs=1e-12)
    assert group.saliency.mean > 0.01
    assert group.gain.mean == pytest.approx(group.saliency.mean)
    assert group.through_network.mean == pytest.approx(0, abs=1e-6)


def test_estimates_are_means_over_images_with_their_standard_error() -> None:
    maps = random_maps(6)
    group = compare(maps)
    one_by_one = [compare(Maps(*(kind[[i]] for kind in maps))) for i in range(6)]
    for name in ("saliency", "squared_saliency", "gain", "through_network"):
        values = [getattr(one, name).mean for one in one_by_one]
        estimate = getattr(group, name)
        assert estimate.mean == pytest.approx(np.mean(values))
        assert estimate.standard_error == pytest.approx(np.std(values, ddof=1) / 6**0.5)
        assert all(getattr(one, name).standard_error == 0 for one in one_by_one)
    distances = [one.distance_px[10].mean for one in one_by_one]
    assert group.distance_px[10].mean == pytest.approx(np.mean(distances))
    # More than half in common: not 5 of 10.
    assert group.majority[10].mean == pytest.approx(sum(group.frequencies[10][6:]))
    assert group.majority[5].mean == pytest.approx(sum(group.frequencies[5][3:]))


def test_what_the_network_adds_is_a_lower_bound() -> None:
    generator = np.random.default_rng(1)
    residual, added = generator.normal(size=(2, 5, 8, 9))
    saliency = 2 / 72 * np.abs(added - residual)
    maps = Maps(*(one.astype(np.float32) for one in (residual, (255 * residual) ** 2, saliency)))
    found = through_network(maps)
    norms = [np.linalg.norm(one.reshape(5, -1), axis=1) for one in (added, residual)]
    assert (found > 0.1).all()
    assert (found <= norms[0] / norms[1]).all()
    nothing = np.zeros((2, 8, 9), np.float32)
    np.testing.assert_array_equal(through_network(Maps(nothing, nothing, nothing)), [0, 0])


def test_maps_that_are_none_are_refused() -> None:
    maps = random_maps(2)
    maps.saliency[1, 0, 0] = np.nan
    with pytest.raises(InputError, match="expected finite ones"):
        compare(maps)


def test_the_papers_own_values_have_the_papers_directions() -> None:
    found = claims([seed_of(PAPERS)])
    assert [one.verdict for one in found] == ["as in the paper"] * 6
    assert [one.mean for one in found] == pytest.approx([one.paper for one in found])
    assert [most_frequent(PAPERS[name], 10) for name in PAPERS] == [4, 2]
    text = describe([seed_of(PAPERS)])
    assert text.endswith("Every direction is the paper's.\n")
    for title, values in {
        "top 5: 0 to 2 in common (table 1)": "0.74 0.74 0.81 0.81",
        "top 5: 3 to 5 in common (table 1)": "0.26 0.26 0.19 0.19",
        "top 10: 0 to 5 in common (table 1)": "0.81 0.81 0.92 0.92",
        "top 10: 6 to 10 in common (table 1)": "0.19 0.19 0.08 0.08",
        "top 10: in common most often (figure 2)": "4 4 2 2",
        "top 5: maximum distance to the best match, px": "8.28 8.28 9.25 9.25",
        "top 10: maximum distance to the best match, px": "8.14 8.14 8.90 8.90",
        "mean squared difference of error and saliency": "0.0303 0.0303 0.0305 0.0305",
        "mean squared difference of error and squared saliency": "0.0071 0.0071 0.0072 0.0072",
        "mean squared error of the reconstruction": "0.0100 0.0200",
    }.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{title}  ")]
        assert line.removeprefix(title).split() == values.split()


def test_a_direction_that_differs_is_told_with_a_reason() -> None:
    groups = swapped(PAPERS)
    verdicts = [one.verdict for one in claims([seed_of(groups)])]
    assert verdicts == ["the other way round"] * 4 + ["as in the paper"] * 2
    text = describe([seed_of(groups)])
    told = text[text.index("Directions that are not the paper's:") :]
    assert "- top 5: fewer novel images agree in most pixels: the other way round\n" in told
    assert "- top 10: the best match is farther away in novel images, px: the other way round\n" in told
    assert "squared saliency" not in told
    # The groups have changed places: 0.6 for normal ones, 0.5 for novel ones, which agree more.
    assert (
        "at least 0.600 of the residual for normal digits and 0.500 for novel ones: less where they agree more" in told
    )
    assert "more --epochs may change directions" in told


def test_a_reason_that_the_data_do_not_bear_out_is_not_given() -> None:
    groups = {
        "normal": replace(PAPERS["novel"], through_network=Estimate(0.2, 0.01)),
        "novel": replace(PAPERS["normal"], through_network=Estimate(0.3, 0.01)),
    }
    text = describe([seed_of(groups)])
    assert "less where they agree more" not in text
    assert "So much alone would make the paper's direction" in text
    little = {name: replace(group, through_network=Estimate(0.01, 0.001)) for name, group in groups.items()}
    assert "The network adds next to nothing to the gradient" in describe([seed_of(little)])


def test_squared_saliency_that_is_farther_from_the_error_is_told() -> None:
    groups = {name: replace(group, gain=Estimate(-0.01, 0.001)) for name, group in PAPERS.items()}
    text = describe([seed_of(groups)])
    assert "- novel: squared saliency is closer to the error: the other way round" in text
    assert "squares of what it adds differ more than what it adds" in text


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (-0.07, "as in the paper"),
        (-0.02, "not to be told from chance"),
        (0.0, "not to be told from chance"),
        (0.02, "not to be told from chance"),
        (0.07, "the other way round"),
    ],
)
def test_a_difference_within_two_standard_errors_is_none(difference: float, verdict: str) -> None:
    majority = PAPERS["normal"].majority
    novel = replace(PAPERS["novel"], majority=majority | {5: Estimate(majority[5].mean + difference, 0.01)})
    results = [seed_of(PAPERS | {"novel": novel})]
    assert claims(results)[0].verdict == verdict
    told = f"- top 5: fewer novel images agree in most pixels: {verdict}" in describe(results)
    assert told == (verdict != "as in the paper")


def test_a_direction_must_be_that_of_every_seed() -> None:
    results = [seed_of(PAPERS), seed_of(PAPERS, 1), seed_of(swapped(PAPERS), 2)]
    assert {one.verdict for one in claims(results)[:4]} == {"not to be told from chance"}
    text = describe(results)
    assert "Seeds point both ways." in text
    (line,) = [line for line in text.splitlines() if line.startswith("top 5: 3 to 5 in common")]
    assert "0.24 (0.19 to 0.26)" in line
