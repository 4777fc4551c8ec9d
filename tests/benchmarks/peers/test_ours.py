"""Our own bundles, fitted for the comparison."""

import pytest

from flawline.benchmarks.peers.ours import fit_ours
from flawline.export import fidelity
from flawline.runtime.bundle import read
from flawline.runtime.images import list_images


@pytest.fixture(scope="module")
def good(tiles):
    return list_images(tiles / "train/good")


def test_the_float_detector_is_fitted_once_and_others_are_made_from_it(good, tile_options, tmp_path):
    said: list[str] = []
    ours = fit_ours(good, tmp_path, tile_options, [("int8", "onnxruntime"), ("fp32", "onnxruntime")], said.append)
    assert [(case.name, case.files) for case in ours.cases] == [
        ("flawline onnxruntime fp32", (tmp_path / "fp32.flaw",)),
        ("flawline onnxruntime int8", (tmp_path / "int8.flaw",)),
    ]
    assert ours.bundles == [tmp_path / "fp32.flaw", tmp_path / "int8.flaw"]
    assert [read(path).precisions for path in ours.bundles] == [("fp32",), ("int8",)]
    assert (ours.failures, ours.refused) == ([], False)


def test_a_float_detector_that_nobody_asked_for_is_no_case(good, tile_options, tmp_path):
    ours = fit_ours(good, tmp_path, tile_options, [("int8", "onnxruntime")])
    assert [case.name for case in ours.cases] == ["flawline onnxruntime int8"]
    assert ours.bundles == [tmp_path / "int8.flaw"]


def test_what_the_gate_refuses_is_told_and_the_rest_goes_on(good, tile_options, tmp_path, monkeypatch):
    strict = fidelity.TOLERANCES["int8"]._replace(feature_error=0.0)
    monkeypatch.setitem(fidelity.TOLERANCES, "int8", strict)
    ours = fit_ours(good, tmp_path, tile_options, [("int8", "onnxruntime"), ("fp32", "onnxruntime")])
    assert [case.name for case in ours.cases] == ["flawline onnxruntime fp32"]
    (failure,) = ours.failures
    assert failure.name == "flawline int8"
    assert "does not score like the float detector" in failure.reason
    assert ours.refused
