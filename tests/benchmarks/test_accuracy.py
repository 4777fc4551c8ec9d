import json

import pytest

from flawline.__main__ import main
from flawline.benchmarks.accuracy import SplitAccuracy, Variant, variants_of
from flawline.benchmarks.accuracy_means import Difference, summarise
from flawline.export import fidelity

FLOATS, HALF = Variant(8, "fp32", "fp32"), Variant(8, "int8", "fp16")


def split(seed: int, variant: Variant, auroc: float) -> SplitAccuracy:
    return SplitAccuracy(seed, variant, 30, 20, 10, 10, auroc, 0.5, None, None, 1, 2)


def test_what_is_compared_is_compared_with_floats():
    assert variants_of([4, 8], ["fp32"], ["fp16"]) == [Variant(4, "fp32", "fp16"), Variant(8, "fp32", "fp16")]
    assert variants_of([8], ["int8", "fp32"], ["fp16"]) == [FLOATS, HALF, Variant(8, "fp32", "fp16")]
    assert variants_of([8], ["fp32"], ["fp16", "fp32"])[0] == FLOATS
    assert len(variants_of([4, 8], ["fp32", "int8"], ["fp16", "fp32", "int8"])) == 12


def test_differences_are_taken_split_by_split():
    measured = [split(0, FLOATS, 0.9), split(0, HALF, 0.8), split(1, FLOATS, 0.7), split(1, HALF, 0.72)]
    reference, other = summarise(measured)
    assert reference.differences == {}
    assert other.differences == {"image_auroc": Difference(pytest.approx(-0.04), pytest.approx(-0.1))}
    assert other.image_auroc == pytest.approx(0.76)


def test_a_split_without_its_reference_counts_for_the_mean_alone():
    _, other = summarise([split(0, FLOATS, 0.9), split(0, HALF, 0.8), split(1, HALF, 0.6)])
    assert other.splits == 2
    assert other.differences["image_auroc"].mean == pytest.approx(-0.1)


def words(tiles, tiny_words, path):
    chosen = ["bench", "accuracy", "--data", str(tiles), *tiny_words, "--dims", "4", "--calibration-images", "20"]
    return [*chosen, "--splits", "1", "--precisions", "fp32,int8", "--json", str(path)]


def test_precisions_and_factors_are_compared_on_the_same_images(tiles, tiny_words, tmp_path, capsys):
    path = tmp_path / "accuracy.json"
    assert main([*words(tiles, tiny_words, path), "--factor-types", "fp16,int8"]) == 0
    means = json.loads(path.read_text())["results"]["means"]
    assert [(one["dimension"], one["precision"], one["factors"]) for one in means] == [
        (4, "fp32", "fp32"),
        (4, "fp32", "fp16"),
        (4, "int8", "fp16"),
        (4, "fp32", "int8"),
        (4, "int8", "int8"),
    ]
    reference, half, *_ = means
    for one in means[1:]:
        found = one["differences"]
        assert set(found) == {"image_auroc", "pixel_auroc", "aupro"}
        assert found["image_auroc"]["mean"] == pytest.approx(one["image_auroc"] - reference["image_auroc"])
        assert found["pixel_auroc"]["largest"] == pytest.approx(one["pixel_auroc"] - reference["pixel_auroc"])
    assert abs(half["differences"]["pixel_auroc"]["mean"]) < 1e-3
    printed = capsys.readouterr().out
    assert "difference to fp32 with fp32 factors on the same images" in printed


def test_a_variant_that_the_gate_refuses_is_told_and_the_rest_measured(
    tiles, tiny_words, tmp_path, capsys, monkeypatch
):
    strict = fidelity.TOLERANCES["int8"]._replace(feature_error=0.0)
    monkeypatch.setitem(fidelity.TOLERANCES, "int8", strict)
    path = tmp_path / "accuracy.json"
    assert main(words(tiles, tiny_words, path)) == 1
    results = json.loads(path.read_text())["results"]
    assert [one["precision"] for one in results["splits"]] == ["fp32", "fp32"]
    (refused,) = results["refused"]
    assert (refused["precision"], refused["factors"]) == ("int8", "fp16")
    assert "does not score like the float detector" in refused["reason"]
    assert "refused on split 0: d = 4, int8 network, fp16 factors" in capsys.readouterr().out
