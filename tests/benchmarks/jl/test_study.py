"""The sweep by linear algebra against the real path, and the command on real files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.benchmarks.datasets import read_mvtec
from flawline.benchmarks.evaluation import score_items
from flawline.benchmarks.jl import cost, headline
from flawline.benchmarks.jl.features import collect_features
from flawline.benchmarks.jl.sweep import Case, Epsilon, Sweep, image_scores
from flawline.calibration.split import split
from flawline.calibration.statistics import StatisticsOptions
from flawline.export.features import open_backbone
from flawline.export.fit import fit_bundle
from flawline.runtime import Detector


def test_sweep_scores_as_the_detector_does(tiles, tile_options, tmp_path):
    dataset = read_mvtec(tiles)
    model = StatisticsOptions(epsilon=0.03, factors="fp32")
    options = replace(tile_options, projection="gaussian", statistics=model, seed=4)
    fit_bundle(dataset.good, tmp_path / "bundle", options)
    fitted, _ = split(
        dataset.good,
        false_reject_rate=options.false_reject_rate,
        calibration_images=options.calibration_images,
        group_by=None,
        seed=options.seed,
    )
    with Detector.open(tmp_path / "bundle") as detector:
        expected = [one.score for one in score_items(detector, dataset.test)]
        sigma = detector.bundle.manifest.map.sigma
    backbone = open_backbone(
        options.backbone, layers=options.layers, weights=None, image_size=64, mean=None, std=None, seed=0
    )
    features = collect_features(backbone, fitted, dataset.test, map_stride=8, threads=2)
    maps = Sweep(features, [Epsilon(0.03)], sigma=sigma, threads=2).maps(Case("gaussian", 8, options.seed))
    np.testing.assert_allclose(image_scores(maps)[0], expected, rtol=2e-4)


def test_command_writes_table_json_and_plots(tiles, tiny_words, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    words = ["bench", "jl", "--data", str(tiles), *tiny_words, "--dims", "2,4", "--kinds", "select,gaussian,none"]
    words += ["--seeds", "2", "--rounds", "3", "--epsilons", "0.01,a0.01"]
    words += ["--cost-map-stride", "16", "--plots", str(tmp_path / "plots")]
    results = []
    for name in ("one.json", "two.json"):
        assert main([*words, "--json", str(tmp_path / name)]) == 0
        results.append(json.loads((tmp_path / name).read_text()))
    first, second = (result["results"]["metrics"] for result in results)
    assert first == second
    assert set(first) == {"image AUROC", "pixel AUROC"}
    assert [one["case"]["dimension"] for one in results[0]["results"]["cost"]] == [2, 4]
    assert results[0]["results"]["empty_masks"] == 1
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "image-auroc-against-dimension.png",
        "pixel-auroc-against-dimension.png",
        "cost-against-dimension.png",
    }
    printed = capsys.readouterr().out
    assert "95 % t intervals" in printed
    assert "chosen on the other half" in printed


def test_data_are_needed(capsys):
    assert main(["bench", "jl"]) == 2
    assert "--data" in capsys.readouterr().err


@pytest.mark.slow
def test_headline_case_at_a_small_size():
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 80, 80), dtype=np.uint8))
    found = headline.measure(frames, image_size=64, sigma_px=8.0, threads=1, rounds=3)
    assert found.map_size == (16, 16)
    by_name = {form.name: form for form in found.forms}
    assert by_name[headline.ORT].smaller == pytest.approx((550 / 150) ** 2)
    assert by_name[headline.PACKED].selection_bytes < 0.3 * by_name[headline.ORT].selection_bytes


def test_cost_is_measured_on_the_finest_layer_of_a_network_without_a_stride_of_its_own(tiny_network):
    backbone = open_backbone(
        str(tiny_network), layers=("fine", "coarse"), weights=None, image_size=70, mean=None, std=None, seed=0
    )
    frames = [np.random.default_rng(0).integers(0, 256, (72, 72), dtype=np.uint8)]
    (found,) = cost.measure(
        backbone, [Case("gaussian", 4, 0)], frames, map_stride=None, sigma_px=4.0, threads=1, rounds=2
    )
    assert found.map_size == (17, 17)
