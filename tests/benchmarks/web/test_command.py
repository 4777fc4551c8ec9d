"""`flawline bench web` on a tiny fabric."""

import json

from flawline.__main__ import main

from .conftest import DEFECTIVE, GOOD, TILE_PX


def words(webs, tiny_network):
    named = ["--backbone", str(tiny_network), "--layers", "fine,coarse", "--map-stride", "8"]
    return ["bench", "web", "--data", str(webs), "--rolls", "07", *named, "--tile", str(TILE_PX), "--threads", "1"]


def test_finds_what_is_flawed_and_writes_everything(webs, tiny_network, tmp_path, capsys):
    file = tmp_path / "web.json"
    more = ["--dims", "8", "--components", "1,2", "--seeds", "2", "--draws", "200", "--precisions", "fp32,int8"]
    assert main([*words(webs, tiny_network), *more, "--json", str(file)]) == 0
    printed = capsys.readouterr()
    result = json.loads(file.read_text())
    found = result["results"]["07"]
    assert found["strips"] == [GOOD, DEFECTIVE]
    # Of 3 strips a fold, one tile each.
    assert [bad for _, bad in found["tiles"]] == [3, 3]
    rows = found["rows"]
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        auroc = row["auroc"]
        assert auroc["low"] <= auroc["mean"] <= auroc["high"]
        assert len(auroc["seeds"]) == 2
        assert auroc["mean"] > 0.95
        assert f"{auroc['mean']:.3f}" in printed.out
    for choice in found["choices"]:
        best = max(tried["auroc"] for tried in choice["tried"])
        assert best >= choice["tried"][0]["auroc"]
        assert {tried["part"] for tried in choice["tried"]} == {
            "start",
            "smoothing_px",
            "margin_px",
            "conditions",
            "layers",
        }
    assert result["settings"]["network"] == "tiny"
    assert str(webs) not in file.read_text()


def test_without_a_choice_there_is_one_table(webs, tiny_network, capsys):
    more = ["--dims", "4", "--components", "1", "--seeds", "1", "--draws", "50", "--no-choice"]
    assert main([*words(webs, tiny_network), *more]) == 0
    out = capsys.readouterr().out
    assert "default" in out
    assert "validation" not in out


def test_bad_input_is_one_line(webs, tiny_network, tmp_path, capsys):
    assert main([*words(webs, tiny_network), "--image-size", "64"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["bench", "web", "--data", str(tmp_path), "--backbone", str(tiny_network), "--layers", "fine"]) == 2
    assert "streams.json" in capsys.readouterr().err
