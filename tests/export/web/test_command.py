"""`fit --web` as a command: what it says, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flawline.__main__ import main
from flawline.runtime import InputError
from flawline.runtime import bundle as bundles
from tests.export.web.fits import command, fit, pieces_of_web, refused


def test_the_command_fits_adds_and_says_the_facts(network, good, tmp_path, capsys):
    out = tmp_path / "web.flaw"
    pitch = ("--pixel-pitch-mm", "0.1", "--line-pitch-mm", "0.25", "--shading", "64")
    assert command(network, good, out, "--json", "--dim", "8", *pitch) == 0
    facts = json.loads(capsys.readouterr().out)["manifest"]
    assert (facts["web"]["pixel_mm"], facts["web"]["line_mm"]) == (0.1, 0.25)
    assert facts["web"]["shading"]["width_px"] == 64
    assert facts["gaussian"]["tie"] == "global"
    added = tmp_path / "int8.flaw"
    assert main(["export", str(out), "--precision", "int8", "--images", str(good), "--out", str(added)]) == 0
    assert bundles.read(added).precisions == ("fp32", "int8")
    capsys.readouterr()
    assert main(["export", str(out), "--to", "standalone", "--out", str(tmp_path / "web.onnx")]) == 2
    assert "is for a web" in capsys.readouterr().err
    assert not (tmp_path / "web.onnx").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tie", "position"), "--tie position is for aligned parts"),
        (("--tie", "column"), "--tile does not go with --tie column"),
        (("--lane", "40"), "lanes of 40 px with the tie global; expected column"),
        (("--edges-margin", "0"), "--edges-margin with --no-edges"),
        (("--pixel-pitch-mm", "0"), "a pitch of 0.0 mm for pixels; expected a positive number"),
        (("--line-pitch-mm", "nan"), "a pitch of nan mm for lines; expected a positive number"),
        (("--pixel-pitch-mm", "inf"), "a pitch of inf mm for pixels"),
        (("--strip-lines", "0"), "strips of 0 px; expected 1 to 8192"),
        (("--tile", "-8"), "tiles of -8 px; expected 1 to 16384"),
        (("--shading", "0"), "shading of 0 px; expected 1 to 65536"),
        (("--binning", "0"), "bins of 0 px; expected 1 to 64"),
        (("--shrinkage", "oas"), "--shrinkage oas is for pictures"),
        (("--flat-field", "nowhere.flat"), "nowhere.flat cannot be read"),
        (("--map-stride", "3"), "a map stride of 3 px; expected a divisor of 8"),
        (("--group-by", "x"), "--group-by is for folders of images"),
        (("--false-reject-rate", "0.001"), "needs 999 held-out strips, but no more than half"),
        (("--false-reject-rate", "1"), "false-reject rate is 1.0"),
        (("--labelled", "x"), "--labelled is for folders of images"),
    ],
)
def test_what_does_not_go_with_a_web_is_one_line_and_exit_2(network, good, tmp_path, capsys, more, message):
    refused(capsys, command(network, good, tmp_path / "web.flaw", *more), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "is_told"), [("8", True), ("64", False)])
def test_tiles_that_are_mostly_context_are_told(network, good, tmp_path, capsys, size, is_told):
    # Refused later on, for want of strips.
    more = ("--strip-lines", size, "--tile", size, "--false-reject-rate", "0.001")
    assert command(network, good, tmp_path / "web.flaw", *more) == 2
    said = capsys.readouterr().err
    # 8 px with 16 px of context on both sides are 40 px.
    assert (
        "the web goes through the network 25 times: wider tiles (--tile) or higher strips (--strip-lines) are faster"
        in said
    ) is is_told


@pytest.mark.parametrize("lane", ["0", "-8", "3", "150"])
def test_lanes_narrower_than_a_column_or_as_wide_as_the_web_are_refused(network, good, tmp_path, capsys, lane):
    options = "--tie column --strip-lines 32 --false-reject-rate 0.1 --no-edges --layers fine,coarse --lane"
    words = ["--web", "--out", str(tmp_path / "x.flaw"), "--backbone", str(network), *options.split(), lane]
    refused(capsys, main(["fit", str(good), *words]), f"lanes of {lane} px; expected 4, a column of the map, to 149")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "more",
    [
        ("--strip-lines", "32"),
        ("--tile", "64"),
        ("--edges-margin", "0"),
        ("--no-edges",),
        ("--line-pitch-mm", "1"),
        ("--binning", "2"),
        ("--lane", "32"),
        ("--flat-field", "camera.flat"),
    ],
)
def test_options_of_webs_need_web(good, tmp_path, capsys, more):
    refused(capsys, main(["fit", str(good), "--out", str(tmp_path / "x.flaw"), *more]), "is for webs; expected --web")


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere", "nowhere"), ("replay:nowhere", "nowhere does not exist"), ("bluetooth:x", "bluetooth")],
)
def test_web_that_is_not_there_is_one_line_and_exit_2(network, tmp_path, capsys, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    refused(capsys, command(network, source, tmp_path / "web.flaw"), message)


def test_a_network_that_is_not_fully_convolutional_is_refused_by_its_operator(good, tmp_path, capsys):
    weight = numpy_helper.from_array(np.ones((4, 3, 4, 4), np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["fine"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["fine"], ["mean"], name="squeeze"),
        helper.make_node("Mul", ["fine", "mean"], ["coarse"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    last = helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["N", 4, "h", "w"])
    graph = helper.make_graph(nodes, "squeezed", [image], [last], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "n.onnx")
    status = command(tmp_path / "n.onnx", good, tmp_path / "web.flaw")
    refused(capsys, status, "not fully convolutional: GlobalAveragePool squeeze")


def test_a_web_that_is_all_table_is_refused(network, tmp_path, capsys):
    folder = pieces_of_web(tmp_path / "web", width=150)
    options = "--strip-lines 32 --edges-margin 80 --false-reject-rate 0.1 --layers fine,coarse"
    out = tmp_path / "web.flaw"
    status = main(["fit", str(folder), "--web", "--out", str(out), "--backbone", str(network), *options.split()])
    refused(capsys, status, "no web lies between the edges")


def test_an_existing_path_is_refused_before_any_work(network, good, tmp_path):
    out = tmp_path / "web.flaw"
    Path(out).mkdir()
    with pytest.raises(InputError, match="exists"):
        fit(network, good, out)
