"""How the fits of peers offer what they made, without the peers."""

import json

import numpy as np

from flawline.benchmarks.peers.workers.fitting import Offers


def test_every_artefact_is_offered_or_named_with_what_went_wrong(tmp_path):
    model = tmp_path / "model.onnx"
    offers = Offers()
    offers.add([("openvino", "f32"), ("openvino", "bf16")], lambda: [model] if model.write_bytes(b"x") else [])
    offers.add([("torch", "fp32")], lambda: [tmp_path / "absent.pt"])
    offers.add([("onnxruntime", "fp32")], lambda: [])
    offers.add([("onnxruntime", "int8"), ("openvino", "int8")], lambda: {}["scale\nof a layer"])
    offers.write(tmp_path, ["numpy", "no-such-package"], ["a note"])
    written = json.loads((tmp_path / "cases.json").read_text())
    assert written["cases"] == [
        {"engine": "openvino", "precision": "f32", "files": [str(model)]},
        {"engine": "openvino", "precision": "bf16", "files": [str(model)]},
    ]
    absent, nothing, *raised = written["failures"]
    assert (absent["engine"], absent["precision"]) == ("torch", "fp32")
    assert absent["reason"].startswith("FileNotFoundError: the export said nothing and left no ")
    assert nothing["reason"] == "FileNotFoundError: the export said nothing and left no file"
    assert [(one["engine"], one["reason"]) for one in raised] == [
        ("onnxruntime", r"KeyError: 'scale\nof a layer'"),
        ("openvino", r"KeyError: 'scale\nof a layer'"),
    ]
    assert written["versions"] == {"numpy": np.__version__}
    assert written["notes"] == ["a note"]


def test_of_a_reason_of_several_lines_the_first_is_kept(tmp_path):
    def make():
        raise ValueError("no such operator\n  in a graph\n  of many lines")

    offers = Offers()
    offers.add([("torch", "fp32")], make)
    offers.write(tmp_path, [], [])
    (failure,) = json.loads((tmp_path / "cases.json").read_text())["failures"]
    assert failure["reason"] == "ValueError: no such operator"
