"""The gate of the packed factors: what packing costs is measured, and a factor that is off does not pass."""

import numpy as np
import pytest

from flawline.calibration.statistics import FACTOR_DTYPES, StatisticsOptions, collect
from flawline.export import factor_parity
from flawline.export.parity import ParityError, textbook_distances
from flawline.runtime.kernels import pack, unpack

HEIGHT, WIDTH, D = 3, 4, 20
FEW, MANY = 6, 40
PROMISED = list(factor_parity.TOLERANCES)


class Embeddings:
    """A reader whose frames are embeddings already."""

    def batches(self, frames):
        return (frame[None] for frame in frames)


@pytest.fixture
def values():
    """Embeddings of images, float32 (N, P, d), with eigenvalues that fall by a factor of 100 in directions of their own."""
    generator = np.random.default_rng(3)
    directions = np.linalg.qr(generator.standard_normal((HEIGHT * WIDTH, D, D)))[0]
    spread = generator.standard_normal((MANY + factor_parity.IMAGES, HEIGHT * WIDTH, 1, D)) * np.geomspace(3, 0.3, D)
    return (2 + spread @ directions)[:, :, 0].astype(np.float32)


def fitted(values, form, factors, **changed):
    options = StatisticsOptions(form=form, factors=factors, **changed)
    good = values[factor_parity.IMAGES :][: FEW if form == "woodbury" else MANY]
    return collect(Embeddings(), good, len(good), (HEIGHT, WIDTH), D, options)


def measured(values, form, factors, **changed):
    statistics = fitted(values, form, factors, **changed)
    return factor_parity.check(values[: factor_parity.IMAGES], statistics, factors, threads=1)


@pytest.mark.parametrize(("form", "factors"), PROMISED)
def test_factors_give_the_distances_of_their_covariances_as_far_as_type_and_form_promise(form, factors, values):
    report = measured(values, form, factors)
    tolerance = factor_parity.TOLERANCES[form, factors]
    assert 0 < report["factor_error_p99"] <= report["factor_error_max"] <= tolerance.maximum
    assert report["factor_error_p99"] <= report["factor_error_p99_tolerance"] == tolerance.p99
    assert report["factor_images"] == factor_parity.IMAGES


def test_what_is_measured_is_the_rounding_of_the_type(values):
    errors = [measured(values, "triangle", factors)["factor_error_p99"] for factors in ("fp32", "fp16", "int8")]
    assert 100 * errors[0] < errors[1] < errors[2] / 5


@pytest.mark.parametrize("shared", [{"tie": "column"}, {"tie": "global"}, {"tie": "global", "components": 3}], ids=str)
def test_shared_gaussians_and_mixtures_are_measured_likewise(shared, values):
    assert measured(values, "triangle", "fp16", **shared)["factor_error_max"] <= 1e-3


# 8 bits are too coarse for 5 % of a row to show in a distance.
@pytest.mark.parametrize(("form", "factors"), PROMISED)
def test_one_row_of_one_factor_that_is_off_is_refused(form, factors, values):
    statistics = fitted(values, form, factors)
    gaussians = statistics.gaussians
    if gaussians.row_scales is None:
        rows = unpack(gaussians.factors[5, 0], D, gaussians.rank)
        rows[-2] *= 1.05
        gaussians.factors[5, 0] = pack(rows, FACTOR_DTYPES[factors])
    else:
        gaussians.row_scales[5, 0, -2] *= 2
    with pytest.raises(ParityError, match=rf"the packed {factors} factors \({form}\) do not give the distances"):
        factor_parity.check(values[: factor_parity.IMAGES], statistics, factors, threads=1)


def test_a_distance_that_is_not_a_number_is_refused(values):
    statistics = fitted(values, "triangle", "fp16")
    values[3, 7, 2] = np.nan
    with pytest.raises(ParityError, match="relative error nan"):
        factor_parity.check(values[: factor_parity.IMAGES], statistics, "fp16", threads=1)


def test_a_position_that_does_not_vary_has_no_error(values):
    values[:, 4] = values[0, 4]
    statistics = fitted(values, "triangle", "fp16")
    compared = values[: factor_parity.IMAGES]
    assert (textbook_distances(compared, statistics)[:, 4] == 0).all()
    assert factor_parity.check(compared, statistics, "fp16", threads=1)["factor_error_max"] <= 1e-3


def test_vectors_are_solved_in_parts_without_a_difference(values, monkeypatch):
    statistics = fitted(values, "triangle", "fp16", tie="global")
    whole = textbook_distances(values, statistics)
    monkeypatch.setattr("flawline.export.parity._CHUNK_BYTES", 7 * D * 8)
    np.testing.assert_allclose(textbook_distances(values, statistics), whole, rtol=1e-12)
