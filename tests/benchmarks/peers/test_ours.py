"""Our own bundles, fitted for the comparison."""

import pytest

from flawline.benchmarks.peers import ours as ours_module
from flawline.benchmarks.peers.ours import fit_ours, from_bundles
from flawline.export import fidelity
from flawline.export.addition import add_precision
from flawline.export.fit import fit_bundle
from flawline.runtime.bundle import read
from flawline.runtime.images import list_images

FP32, INT8 = ("fp32", "onnxruntime"), ("int8", "onnxruntime")


@pytest.fixture(scope="module")
def good(tiles):
    return list_images(tiles / "train/good")


def test_the_float_detector_is_fitted_once_per_type_of_factors_and_others_are_made_from_it(
    good, tile_options, tmp_path, monkeypatch
):
    fitted = []
    monkeypatch.setattr(ours_module, "fit_bundle", lambda *words: (fitted.append(words[1].name), fit_bundle(*words))[1])
    ours = fit_ours(good, tmp_path, tile_options, [INT8, FP32], ["fp16", "int8"])
    assert fitted == ["fp32-fp16.flaw", "fp32-int8.flaw"]
    assert [(case.name, case.factors, case.files) for case in ours.cases] == [
        ("flawline onnxruntime fp32, fp16 factors", "fp16", (tmp_path / "fp32-fp16.flaw",)),
        ("flawline onnxruntime int8, fp16 factors", "fp16", (tmp_path / "int8-fp16.flaw",)),
        ("flawline onnxruntime fp32, int8 factors", "int8", (tmp_path / "fp32-int8.flaw",)),
        ("flawline onnxruntime int8, int8 factors", "int8", (tmp_path / "int8-int8.flaw",)),
    ]
    assert ours.bundles == [case.files[0] for case in ours.cases]
    opened = [read(path) for path in ours.bundles]
    assert [one.precisions for one in opened] == [("fp32",), ("int8",)] * 2
    assert [one.manifest.gaussian.factors for one in opened] == ["fp16", "fp16", "int8", "int8"]
    assert (ours.failures, ours.refused) == ([], False)


def test_what_is_deployed_is_the_precision_that_runs(tile_bundle, good, tmp_path):
    both = tmp_path / "both.flaw"
    add_precision(tile_bundle, "int8", good, both, threads=1)
    sizes = {file.name: file.stat().st_size for file in both.iterdir()}
    manifest = sizes["manifest.json"] + sizes["manifest.sha256"]
    floats, int8 = from_bundles([both], [FP32, INT8]).cases
    own = sum(sizes[name] for name in ("features.onnx", "statistics.safetensors", "golden.safetensors"))
    assert floats.deployed_bytes == manifest + own
    assert int8.deployed_bytes == sum(sizes.values()) - own


def test_a_float_detector_that_nobody_asked_for_is_no_case(good, tile_options, tmp_path):
    ours = fit_ours(good, tmp_path, tile_options, [INT8], ["fp16"])
    assert [case.name for case in ours.cases] == ["flawline onnxruntime int8, fp16 factors"]
    assert ours.bundles == [tmp_path / "int8-fp16.flaw"]


def test_what_the_gate_refuses_is_told_and_the_rest_goes_on(good, tile_options, tmp_path, monkeypatch):
    strict = fidelity.TOLERANCES["int8"]._replace(feature_error=0.0)
    monkeypatch.setitem(fidelity.TOLERANCES, "int8", strict)
    ours = fit_ours(good, tmp_path, tile_options, [INT8, FP32], ["fp16"])
    assert [case.name for case in ours.cases] == ["flawline onnxruntime fp32, fp16 factors"]
    (failure,) = ours.failures
    assert failure.name == "flawline int8, fp16 factors"
    assert "does not score like the float detector" in failure.reason
    assert ours.refused
