"""A model per lane."""

import numpy as np
import pytest

from flawline.calibration.statistics import StatisticsOptions
from flawline.calibration.web_pieces import read_pieces
from flawline.export.addition import add_precision
from flawline.export.fit import fit_bundle
from flawline.export.options import FitOptions
from flawline.runtime import InputError
from flawline.runtime.images import write_image
from flawline.runtime.web.inspector import WebInspector
from tests.export.web.fits import embeddings_of, fit, held_out_and_fitted

LANE, LANES_WIDTH, BORDER = 40, 300, 140


def noise(lines, width, deviation, seed):
    """uint8 (lines, width)."""
    values = 130 + np.random.default_rng(seed).normal(0, deviation, (lines, width))
    return np.clip(values, 0, 255).astype(np.uint8)


def lanes_of_web(lines, seed):
    """A rough texture left of a border, a smooth one right of it; the fourth lane of eight shows both."""
    return np.hstack([noise(lines, BORDER, 30, seed), noise(lines, LANES_WIDTH - BORDER, 6, seed + 500)])


@pytest.fixture(scope="module")
def laned(network, tmp_path_factory):
    """Good web in lanes, a bundle that knows them, and one that does not."""
    folder = tmp_path_factory.mktemp("lanes")
    (folder / "good").mkdir()
    for number in range(14):
        write_image(folder / "good" / f"{number:02}.png", lanes_of_web(96, number))
    lanes = fit(network, folder / "good", folder / "lanes.flaw", statistics={"tie": "column", "lane_px": LANE})
    return folder / "good", lanes, fit(network, folder / "good", folder / "one.flaw")


def test_a_lane_has_the_statistics_of_its_columns_and_no_others(network, laned):
    good, bundle, _ = laned
    # The web of 300 px is 304 px in steps of the stride.
    assert (bundle.manifest.gaussian.count, bundle.manifest.gaussian.lane_px) == (8, LANE)
    _, pieces = held_out_and_fitted(good, bundle)
    values = np.concatenate([embeddings_of(network, piece.load()) for piece in pieces]).astype(np.float64)
    for lane in range(8):
        own = values[:, 10 * lane : 10 * (lane + 1)].reshape(-1, 16)
        np.testing.assert_allclose(bundle.statistics["means"][lane, 0], own.mean(axis=0), rtol=1e-3, atol=1e-3)
    # The ring goes with the outermost lanes.
    row = bundle.statistics["assignment"][: bundle.manifest.map.width]
    np.testing.assert_array_equal(row, [0, 0, *np.repeat(np.arange(7), 10), *[7] * 8])


def test_what_is_good_in_one_lane_is_a_defect_in_another_which_one_model_of_all_does_not_see(laned):
    _, lanes, one = laned
    clean, mixed = lanes_of_web(160, 99), lanes_of_web(160, 99)
    mixed[60:108, 220:268] = noise(160, LANES_WIDTH, 30, 7)[60:108, 220:268]
    of_threshold = {}
    for name, bundle in (("lanes", lanes), ("one", one)):
        with WebInspector(bundle, LANES_WIDTH, strip_lines=64, backend="onnxruntime") as inspector:
            good = inspector.inspect_piece(clean)[0] / bundle.manifest.threshold.score
            found = inspector.inspect_piece(mixed)[0] / bundle.manifest.threshold.score
        for lane in range(8):
            assert good[:, 10 * lane : 10 * (lane + 1)].mean() < 1
        of_threshold[name] = found[60 // 4 + 3 : 108 // 4 - 3, 220 // 4 + 3 : 268 // 4 - 3].mean()
    assert of_threshold["lanes"] > 2
    assert of_threshold["one"] < 1


def test_lanes_are_kept_when_a_precision_is_added(laned, tmp_path):
    good, bundle, _ = laned
    added = add_precision(bundle.path, "int8", read_pieces(str(good)), tmp_path / "added.flaw", threads=1)
    view = added.select("int8")
    assert (view.manifest.gaussian.count, view.manifest.gaussian.lane_px) == (8, LANE)
    np.testing.assert_array_equal(view.statistics["assignment"], bundle.statistics["assignment"])


def test_lanes_of_pictures_are_refused(good, network, tmp_path):
    model = StatisticsOptions(tie="column", lane_px=32)
    options = FitOptions(
        backbone=str(network), layers=("fine", "coarse"), image_size=64, false_reject_rate=0.2, statistics=model
    )
    with pytest.raises(InputError, match="lanes of 32 px are for webs"):
        fit_bundle(sorted(good.glob("*.png")), tmp_path / "x.flaw", options)
    assert list(tmp_path.iterdir()) == []
