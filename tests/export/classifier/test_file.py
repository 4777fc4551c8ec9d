"""Classifiers from ONNX files: which tensor is taken for deep features, which for logits, and what is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from flawline.__main__ import main
from flawline.detectors.classifiers import build_classifier
from flawline.export.backbone import trace
from flawline.export.classifier_graph import load_classifier
from flawline.runtime.errors import InputError


def network(path: Path, behind: Sequence[str] = ()) -> onnx.ModelProto:
    """Writes a LeNet of four classes whose logits go through some operators."""
    model = trace(build_classifier("lenet", 4, seed=3)[0].eval(), (1, 28, 28), ["logits"], title="net")
    tensor = "logits"
    for operator in behind:
        given, tensor = tensor, f"behind_{operator}"
        inputs = [given]
        attributes = {"Softmax": {"axis": 1}, "Cast": {"to": onnx.TensorProto.FLOAT}}.get(operator, {})
        if operator == "Reshape":
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 4]), "shape"))
            inputs.append("shape")
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [tensor], **attributes))
    model.graph.output[0].name = tensor
    path.write_bytes(model.SerializeToString())
    return model


def last(model: onnx.ModelProto, operator: str) -> str:
    return str(next(node.output[0] for node in reversed(model.graph.node) if node.op_type == operator))


@pytest.mark.parametrize(
    "behind",
    [
        (),
        ("Softmax",),
        ("Softmax", "Identity"),
        ("Identity", "Softmax", "Flatten"),
        ("Flatten", "Softmax", "Reshape"),
        ("Softmax", "Cast"),
    ],
    ids="-".join,
)
def test_the_logits_are_found_in_front_of_the_softmax(behind: tuple[str, ...], tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx", behind)
    plain = network(tmp_path / "plain.onnx")
    graph = load_classifier(tmp_path / "net.onnx", last(model, "Relu"), 28, 28)
    image = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    found = onnxruntime.InferenceSession(graph.model.SerializeToString()).run(None, {graph.input: image})[1]
    expected = onnxruntime.InferenceSession(plain.SerializeToString()).run(None, {plain.graph.input[0].name: image})[0]
    np.testing.assert_allclose(found[:, :, 0, 0], expected, rtol=1e-6)
    for tensor in ("logits", *(f"behind_{operator}" for operator in behind)):
        with pytest.raises(InputError, match=f"tensor {tensor} is the logits or their softmax"):
            load_classifier(tmp_path / "net.onnx", tensor, 28, 28)


def test_a_map_of_many_positions_is_one_line(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    layer = last(network(path), "MaxPool")
    options = f"--detector center-loss --image-size 28 --network {path} --layer {layer}"
    assert main(["fit", str(archive), "--out", str(tmp_path / "a.flaw"), *options.split()]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flawline fit: network net.onnx: tensor {layer} has the shape (")
    assert line.endswith(
        "16, 5, 5), many positions; expected (N, d) or (N, d, 1, 1), such as the tensor behind the pooling"
    )
