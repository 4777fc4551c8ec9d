"""`flawline verify`: what is damage, what is another machine's arithmetic, and what is neither."""

import hashlib
import json

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime import Detector, EngineError, bundle
from flawline.runtime.bundle import read
from flawline.runtime.bundle.manifest import MINOR
from flawline.runtime.engines import open_scorer
from flawline.runtime.verification import verify


def run(capsys, *words):
    status = main(["verify", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def dark(make_bundle, graph, tmp_path):
    """A bundle whose golden frame of zeros has no finite score here: the graph takes logarithms."""
    frame = np.zeros((32, 32), np.uint8)
    golden = [bundle.Golden(frame=frame, score=7.0, map=frame.astype(np.float32))]
    return make_bundle(tmp_path / "dark.flaw", features=graph(32, 32, "Log"), golden=golden).path


def test_a_bundle_that_scores_as_it_should_is_verified(through, capsys):
    status, out, err = run(capsys, through, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found.pop("backend") in ("onnxruntime", "openvino"), found.pop("precision")) == (True, "fp32")
    assert found == {
        "verified": True,
        "golden": [
            {
                "expected": 7.0,
                "tolerance": 1e-3,
                "passed": True,
                "score": 7.0,
                "relative_error": 0.0,
                "map_relative_error": 0.0,
                "problem": None,
            }
        ],
    }


def test_a_golden_frame_without_a_finite_score_has_not_passed(dark, capsys):
    with pytest.raises(EngineError, match=r"no engine gives the golden scores.*the score is nan"):
        Detector.open(dark)
    with open_scorer(read(dark), "onnxruntime", threads=1) as scorer:
        (check,) = verify(read(dark), scorer)
    assert (check.passed, check.score) == (False, None)
    assert "the score is nan" in check.problem
    status, out, err = run(capsys, dark)
    assert (status, err) == (1, "")
    assert "golden frame 0: no score, expected 7 (the score is nan" in out
    assert out.endswith("NOT VERIFIED in fp32 on onnxruntime\n")


def test_json_without_a_score_is_valid(dark, capsys):
    status, out, _ = run(capsys, dark, "--json")
    assert status == 1

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(out, parse_constant=refuse)
    assert found["verified"] is False
    assert found["golden"][0]["score"] is None


def test_a_golden_frame_that_is_refused_has_not_passed(make_bundle, tmp_path, capsys):
    golden = [bundle.Golden(np.zeros((1, 1), np.uint8), 0.0, np.zeros((32, 32), np.float32))]
    path = make_bundle(tmp_path / "speck.flaw", golden=golden).path
    status, out, _ = run(capsys, path)
    assert status == 1
    assert "frame is 1 x 1 px" in out


def test_a_flipped_byte_is_damage(make_bundle, tmp_path, capsys):
    path = make_bundle(tmp_path / "flipped.flaw").path
    file = path / "statistics.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    status, out, _ = run(capsys, path)
    assert status == 1
    assert out.startswith("DAMAGED: ")
    status, out, _ = run(capsys, path, "--json")
    assert status == 1
    assert json.loads(out)["verified"] is False


def test_a_folder_of_other_things_is_no_bundle(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("")
    status, out, err = run(capsys, tmp_path, "--json")
    assert (status, out) == (2, "")
    assert "holds neither manifest.json nor manifest.sha256; expected the folder of a bundle" in err


def test_a_newer_format_is_not_damage(make_bundle, tmp_path, capsys):
    path = make_bundle(tmp_path / "newer.flaw").path
    manifest = (path / "manifest.json").read_bytes().replace(b'"major": 1', b'"major": 2')
    (path / "manifest.json").write_bytes(manifest)
    (path / "manifest.sha256").write_text(hashlib.sha256(manifest).hexdigest() + "\n")
    status, out, err = run(capsys, path)
    assert (status, out) == (2, "")
    assert f"is of format 2.{MINOR}, this version reads format 1: update flawline" in err


def test_an_engine_that_refuses_the_graph_is_not_damage(make_bundle, tmp_path, capsys):
    path = make_bundle(tmp_path / "other.flaw", features=b"no graph of this engine's").path
    with pytest.raises(EngineError):
        Detector.open(path)
    status, out, err = run(capsys, path)
    assert (status, out) == (2, "")
    assert "ONNX Runtime refuses the feature graph" in err
