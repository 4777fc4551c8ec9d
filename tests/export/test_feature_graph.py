"""Any ONNX file as a backbone: cut at named tensors, or refused with the reason."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch.nn import functional

from flawline.export.graph import compose, load_backbone, tensor_names
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

onnxruntime = LazyModule("onnxruntime", "pip install onnxruntime")

CHANNELS = (4, 6)


def weights(in_channels: int = 3) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    generator = np.random.default_rng(0)
    shapes = ((CHANNELS[0], in_channels, 3, 3), (CHANNELS[1], CHANNELS[0], 3, 3))
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def network(
    shape: Sequence[int | str] = ("batch", 3, "height", "width"),
    *,
    dtype: int = TensorProto.FLOAT,
    opset: int = 18,
    extra_nodes: Sequence[onnx.NodeProto] = (),
    extra_inputs: Sequence[onnx.ValueInfoProto] = (),
    listed_weights: bool = False,
) -> ModelProto:
    """Two strided convolutions, `shallow` and `deep`, and a classifier behind them."""
    arrays = dict(zip(("first", "second"), weights(3 if isinstance(shape[1], str) else int(shape[1])), strict=True))
    image = helper.make_tensor_value_info("pixels", dtype, shape)
    listed = [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in arrays.items()]
    nodes = [
        helper.make_node("Conv", ["pixels", "first"], ["c1"], strides=(2, 2), pads=(1, 1, 1, 1)),
        helper.make_node("Relu", ["c1"], ["shallow"], doc_string='File "/home/alice/net.py", line 3'),
        helper.make_node("Conv", ["shallow", "second"], ["c2"], strides=(2, 2), pads=(1, 1, 1, 1)),
        helper.make_node("Relu", ["c2"], ["deep"]),
        helper.make_node("GlobalAveragePool", ["deep"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
        *extra_nodes,
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [image, *extra_inputs, *(listed if listed_weights else ())],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"exported_from": "/home/alice/net.py"})
    return model


def save(model: ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


def refusal(path: Path, layers: Sequence[str] = ("shallow", "deep"), height: int = 32, width: int = 32) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(path, layers, height, width)
    message = str(caught.value)
    assert "\n" not in message
    return message


def expected_maps(image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    x, maps = torch.from_numpy(image).double(), []
    for weight in weights(image.shape[1]):
        x = functional.relu(functional.conv2d(x, torch.from_numpy(weight).double(), stride=2, padding=1))
        maps.append(x.numpy())
    return maps


@pytest.mark.parametrize(
    "shape", [("batch", 3, "height", "width"), ("batch", 3, 32, 48), (1, 3, 32, 48), (None, 3, None, None)]
)
def test_network_with_dynamic_or_matching_size_is_cut(shape: Sequence[int | str], tmp_path: Path) -> None:
    path = save(network(shape), tmp_path)
    graph = load_backbone(path, ["shallow", "deep"], 32, 48)
    assert (graph.input, graph.image_channels, graph.channels) == ("pixels", 3, CHANNELS)
    assert graph.sizes == ((16, 24), (8, 12))
    assert graph.strides == (2, 4)
    assert graph.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [node.op_type for node in graph.model.graph.node] == ["Conv", "Relu", "Conv", "Relu"]
    image = np.random.default_rng(1).standard_normal((2, 3, 32, 48)).astype(np.float32)
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    for received, expected in zip(session.run(None, {"pixels": image}), expected_maps(image), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("image_channels", "channels"), [(3, 3), (3, 1), (1, 1)])
def test_composed_graph_of_a_foreign_network_equals_torch(image_channels: int, channels: int, tmp_path: Path) -> None:
    path = save(network(("batch", image_channels, "height", "width")), tmp_path)
    graph = load_backbone(path, ["shallow", "deep"], 32, 32)
    projection = np.random.default_rng(2).standard_normal((5, 10)).astype(np.float32)
    mean, std = np.linspace(90, 130, image_channels), np.linspace(40, 60, image_channels)
    model, outputs = compose(
        graph, height=32, width=32, channels=channels, mean=mean, std=std, projection=projection, map_stride=2
    )
    assert outputs == [("features_0", 16, 16), ("features_1", 8, 8)]
    frames = np.random.default_rng(3).integers(0, 256, (2, 32, 32, channels), dtype=np.uint8)
    image = ((frames - mean) / std).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    columns = (projection[:, :4], projection[:, 4:])
    maps = expected_maps(image)
    for received, features, matrix in zip(session.run(None, {"frame": frames}), maps, columns, strict=True):
        expected = np.einsum("dc,bchw->bdhw", matrix, features)
        assert np.abs(received - expected).max() <= 1e-4 * np.abs(expected).max()


def test_names_of_the_composed_graph_do_not_meet_those_of_the_network(tmp_path: Path) -> None:
    model = network()
    for old, new in (("pixels", "frame"), ("shallow", "features_0"), ("c1", "frame_float"), ("first", "scale")):
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for item in (*model.graph.input, *model.graph.initializer):
            item.name = new if item.name == old else item.name
    graph = load_backbone(save(model, tmp_path), ["features_0", "deep"], 32, 32)
    composed, outputs = compose(
        graph, height=32, width=32, channels=3, mean=(0, 0, 0), std=(1, 1, 1), projection=None, map_stride=4
    )
    assert outputs == [("features_0", 8, 8)]
    (features,) = onnxruntime.InferenceSession(composed, providers=["CPUExecutionProvider"]).run(
        None, {"frame": np.full((1, 32, 32, 3), 9, np.uint8)}
    )
    shallow, deep = expected_maps(np.full((1, 3, 32, 32), 9, np.float32))
    np.testing.assert_allclose(features[:, 4:], deep, rtol=1e-4, atol=1e-2)
    pooled = shallow.reshape(1, 4, 8, 2, 8, 2).mean((3, 5))
    np.testing.assert_allclose(features[:, :4], pooled, rtol=1e-4, atol=1e-2)


def test_notes_of_the_exporter_are_left_out(tmp_path: Path) -> None:
    graph = load_backbone(save(network(), tmp_path), ["deep"], 32, 32)
    composed, _ = compose(graph, height=32, width=32, channels=3, mean=(0, 0, 0), std=(1, 1, 1), projection=None)
    assert b"alice" not in composed


def test_weights_listed_as_inputs_are_no_image(tmp_path: Path) -> None:
    graph = load_backbone(save(network(listed_weights=True), tmp_path), ["shallow"], 32, 32)
    assert [value.name for value in graph.model.graph.input] == ["pixels"]
    assert [tensor.name for tensor in graph.model.graph.initializer] == ["first"]


def test_older_opset_is_converted(tmp_path: Path) -> None:
    graph = load_backbone(save(network(opset=11), tmp_path), ["deep"], 32, 32)
    assert [entry.version for entry in graph.model.opset_import] == [17]


def test_opset_that_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    model = network()
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("alice", 1))
    assert "is of opset 0 and cannot be converted; export it with an opset of 17 to 20" in refusal(
        save(model, tmp_path)
    )


def test_flipped_bits_give_a_network_or_a_refusal(tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        flipped = bytearray(content)
        flipped[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        try:
            load_backbone(path, ["shallow", "deep"], 32, 32)
        except InputError:
            refused += 1
    assert refused > 50


def test_functions_of_the_file_are_inlined(tmp_path: Path) -> None:
    model = network()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gate", "alice"
    opsets = [helper.make_opsetid("", 18)]
    gate = helper.make_function("alice", "Gate", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opsets)
    model.functions.append(gate)
    model.opset_import.append(helper.make_opsetid("alice", 1))
    graph = load_backbone(save(model, tmp_path), ["shallow"], 32, 32)
    assert [node.op_type for node in graph.model.graph.node] == ["Conv", "Relu"]


def test_branch_keeps_the_tensors_it_reads_from_outside(tmp_path: Path) -> None:
    branches = {}
    for name, source in (("then_branch", "shallow"), ("else_branch", "c1")):
        output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        node = helper.make_node("Identity", [source], [output.name], doc_string="/home/alice/branch.py")
        branches[name] = helper.make_graph([node], name, [], [output])
    chosen = helper.make_node("If", ["condition"], ["branched"], **branches)
    model = network(extra_nodes=[chosen])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    graph = load_backbone(save(model, tmp_path), ["branched"], 32, 32)
    assert {node.op_type for node in graph.model.graph.node} == {"Conv", "Relu", "If"}
    assert graph.sizes == ((16, 16),)
    assert b"alice" not in graph.model.SerializeToString()


def test_unknown_tensor_is_answered_with_the_nearest_names(tmp_path: Path) -> None:
    message = refusal(save(network(), tmp_path), ["shalow"])
    assert "no tensor shalow among its 6; nearest: shallow" in message
    assert "tensor_names" in message


def test_advice_on_listing_tensors_works(tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    code = "import sys, flawline.export.graph as g; print(*g.tensor_names(sys.argv[1]), sep='\\n')"
    listing = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert listing.split() == tensor_names(path) == ["c1", "shallow", "c2", "deep", "pooled", "logits"]


@pytest.mark.parametrize("layers", [[], ["deep", "deep"]])
def test_no_layer_or_the_same_one_twice_is_refused(layers: list[str], tmp_path: Path) -> None:
    assert "expected different tensors" in refusal(save(network(), tmp_path), layers)


def test_tensor_that_is_no_map_is_refused(tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    assert "tensor logits has the shape ('N', 6); expected float32 (N, c, h, w)" in refusal(path, ["logits"])
    cast = helper.make_node("Cast", ["deep"], ["whole"], to=TensorProto.INT32)
    assert "tensor whole has" in refusal(save(network(extra_nodes=[cast]), tmp_path), ["whole"])


def test_other_fixed_size_is_refused(tmp_path: Path) -> None:
    path = save(network(("batch", 3, 224, 224)), tmp_path)
    assert "takes images of 224 x 224, received the size 32 x 32" in refusal(path)


def test_fixed_batch_inside_the_network_is_refused(tmp_path: Path) -> None:
    reshape = helper.make_node("Reshape", ["deep", "shape"], ["fixed"])
    model = network((1, 3, 32, 32), extra_nodes=[reshape])
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 6, 8, 8], np.int64), "shape"))
    assert "fixed batch of 1" in refusal(save(model, tmp_path), ["fixed"])


def test_size_that_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    added = helper.make_node("Add", ["deep", "table"], ["sum"])
    model = network(extra_nodes=[added])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 6, 7, 7), np.float32), "table"))
    assert "does not take images of 32 x 32" in refusal(save(model, tmp_path), ["sum"])


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        (("batch", "height", "width", 3), TensorProto.FLOAT, "expected float32 (N, 3 or 1, height, width)"),
        (("batch", 4, "height", "width"), TensorProto.FLOAT, "has the shape ('batch', 4, 'height', 'width')"),
        ((3, "height", "width"), TensorProto.FLOAT, "has the shape (3, 'height', 'width')"),
        (("batch", 3, "height", "width"), TensorProto.FLOAT16, "is not of type float32"),
        (("batch", 3, "height", "width"), TensorProto.UINT8, "is not of type float32"),
    ],
)
def test_input_that_is_no_image_is_refused(
    shape: Sequence[int | str], dtype: int, message: str, tmp_path: Path
) -> None:
    assert message in refusal(save(network(shape, dtype=dtype), tmp_path))


def test_second_input_is_refused(tmp_path: Path) -> None:
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ("batch", 1, 32, 32))
    path = save(network(extra_inputs=[mask]), tmp_path)
    assert "has the inputs pixels, mask; expected one image" in refusal(path)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0)
    assert "keeps weights in other files" in refusal(tmp_path / "net.onnx")
    (next(path for path in tmp_path.iterdir() if path.suffix != ".onnx")).unlink()
    assert "external_data=False" in refusal(tmp_path / "net.onnx")


@pytest.mark.parametrize("content", [b"", b"these are not the bytes of a network", b"\x08\x08\x12\x04"])
def test_file_that_is_no_network_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert "network net.onnx" in refusal(tmp_path / "net.onnx")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(keep: float, tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    assert "network net.onnx" in refusal(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.onnx")
