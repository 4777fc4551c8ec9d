"""Seams are measured on a real network, and a network without context fails the measure."""

import json

import pytest

from flawline.__main__ import main
from flawline.runtime.images import write_image
from tests.runtime.web_bundles import texture, web_bundle


def test_strips_with_context_are_exact_and_strips_by_themselves_are_not(tmp_path, capsys):
    bundle = web_bundle(tmp_path / "web.flaw", threshold=3.0)
    write_image(tmp_path / "web.png", texture(256, 100))
    options = ["--lines", str(tmp_path / "web.png"), "--heights", "16,64", "--web-lines", "200", "--width", "64"]
    options += ["--seam-height", "64", "--step", "4", "--backend", "onnxruntime", "--plot", str(tmp_path / "seams.png")]
    assert main(["bench", "seams", str(bundle.path), *options, "--json", str(tmp_path / "out.json")]) == 0
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [each["strip_lines"] for each in results["exactness"]] == [16, 64]
    assert all(each["relative_error"] <= 1e-4 and each["same_defects"] for each in results["exactness"])
    assert all(each["defects"] > 0 for each in results["exactness"])
    assert [each["line"] for each in results["moved"]] == list(range(32, 96, 4))
    assert results["largest_error"]["strips"] <= 1e-4
    assert results["largest_error"]["naive"] > 1e-3
    assert (tmp_path / "seams.png").read_bytes()[:4] == b"\x89PNG"
    assert "seam at 64" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--web-lines", "500"], ["--width", "200"], ["--seam-height", "128"]])
def test_an_image_that_is_too_small_is_refused(options, tmp_path, capsys):
    bundle = web_bundle(tmp_path / "web.flaw")
    write_image(tmp_path / "web.png", texture(256, 100))
    common = ["--lines", str(tmp_path / "web.png"), "--web-lines", "200", "--width", "64"]
    assert main(["bench", "seams", str(bundle.path), *common, *options]) == 2
    assert "expected grey" in capsys.readouterr().err
