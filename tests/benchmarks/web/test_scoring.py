"""Scores from stored features against those of a bundle that is fitted and streamed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from flawline.benchmarks.web.aitex import read_roll
from flawline.benchmarks.web.features import Conditions, collect
from flawline.benchmarks.web.scoring import ProjectedRoll, TileScores, fit, spread
from flawline.calibration.statistics import StatisticsOptions
from flawline.export.features import open_backbone
from flawline.export.fit_web import fit_web_bundle
from flawline.export.options import FitOptions, WebOptions
from flawline.runtime.images import read_image
from flawline.runtime.web.inspector import WebInspector

from .conftest import HEIGHT, TABLE, TILE_PX, WIDTH

MARGIN_PX, SMOOTHING_PX, DIMENSION, STRIDE = 16, 12.0, 6, 8
LAYERS = ("fine", "coarse")
MODEL = StatisticsOptions(tie="global", factors="fp32")


@pytest.fixture(scope="module")
def backbone(tiny_network):
    return open_backbone(str(tiny_network), layers=LAYERS, weights=None, image_size=None, mean=None, std=None, seed=0)


@pytest.fixture(scope="module")
def features(webs, backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    return collect(backbone, read_roll(webs, "07"), Conditions(), folder, map_stride=STRIDE, threads=1)


def test_tiles_score_as_in_the_stream(webs, tiny_network, features, tmp_path):
    roll = read_roll(webs, "07")
    good = tmp_path / "good"
    good.mkdir()
    for strip in roll.strips[: roll.good]:
        shutil.copy(strip.path, good)
    options = FitOptions(
        backbone=str(tiny_network),
        layers=LAYERS,
        map_stride=STRIDE,
        dimension=DIMENSION,
        smoothing_px=SMOOTHING_PX,
        statistics=MODEL,
        false_reject_rate=0.2,
        threads=1,
    )
    web = WebOptions(strip_lines=HEIGHT, tile_px=TILE_PX, margin_px=MARGIN_PX)
    bundle = fit_web_bundle(str(good), tmp_path / "web.flaw", options, web)
    model = bundle.statistics
    projected = ProjectedRoll(features, (0, 1), DIMENSION, 0)
    fitted = {strip: features.inside(strip, MARGIN_PX) for strip in range(roll.good)}
    gaussians = fit(projected, fitted, MODEL)
    # The bundle holds out some strips, so its own statistics are put in.
    gaussians = replace(gaussians, means=model["means"], factors=model["factors"], scales=model["scales"])
    score = TileScores(features, TILE_PX, SMOOTHING_PX, MARGIN_PX)
    strip = len(roll.strips) - 1
    found = score(projected.vectors(strip), features.strips[strip], gaussians, 1)
    with WebInspector(bundle, WIDTH) as inspector:
        values, mask = inspector.inspect_piece(read_image(roll.strips[strip].path))
    cells = TILE_PX // STRIDE
    for tile, value in enumerate(found[0]):
        columns = slice(tile * cells, (tile + 1) * cells)
        if mask[:, columns].any():
            # Embeddings are stored in half precision.
            np.testing.assert_allclose(value, values[:, columns].max(), rtol=5e-3)
        else:
            assert np.isnan(value)


def test_statistics_are_those_of_the_positions_that_are_chosen(features):
    projected = ProjectedRoll(features, (0, 1), DIMENSION, 3)
    generator = np.random.default_rng(0)
    chosen = {strip: generator.random((HEIGHT // STRIDE, WIDTH // STRIDE)) < 0.5 for strip in (0, 4, 17)}
    found = fit(projected, chosen, MODEL)
    vectors = np.concatenate([projected.vectors(strip)[positions.ravel()] for strip, positions in chosen.items()])
    np.testing.assert_allclose(found.means[0, 0], vectors.mean(axis=0), rtol=1e-4, atol=1e-5)
    several = fit(projected, chosen, StatisticsOptions(tie="global", components=3))
    assert several.means.shape == (1, 3, DIMENSION)


def test_layers_that_are_left_out_do_not_matter(features):
    both, fine = ProjectedRoll(features, (0, 1), 4, 0), ProjectedRoll(features, (0,), 4, 0)
    stored = np.load(features.strips[0].path)
    assert stored.shape[1] == sum(features.channels)
    assert not np.allclose(both.vectors(0), fine.vectors(0))
    # An orthogonal projection to as many channels as there are keeps lengths.
    whole = ProjectedRoll(features, (0,), features.channels[0], 0).vectors(0)
    lengths = np.linalg.norm(stored[:, : features.channels[0]].astype(np.float32), axis=1)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), lengths, rtol=1e-4)


def test_the_table_and_the_margin_are_no_web(features):
    for margin_px in (0, 40):
        inside = features.inside(0, margin_px)
        first = inside.argmax(axis=1) * STRIDE
        assert np.all((first >= TABLE - 2 + margin_px) & (first <= TABLE + 2 + margin_px + STRIDE))
        assert inside[:, -1].all() == (margin_px == 0)


def test_half_the_resolution_gives_a_quarter_of_the_positions(webs, backbone, features, tmp_path):
    half = collect(backbone, read_roll(webs, "07"), Conditions(shrink=2), tmp_path, map_stride=STRIDE, threads=1)
    assert 4 * half.inside(0, 0).size == features.inside(0, 0).size
    assert len(half.strips) == len(features.strips)


def test_what_is_so_of_tiles_is_so_of_their_positions():
    tiles = np.array([[True, False, True]])
    np.testing.assert_array_equal(spread(tiles, (2, 8), 3), [[1, 1, 1, 0, 0, 0, 1, 1]] * 2)
    np.testing.assert_array_equal(spread(tiles, (4, 10), 3), [[1, 1, 1, 0, 0, 0, 1, 1, 1, 0]] * 3 + [[0] * 10])
