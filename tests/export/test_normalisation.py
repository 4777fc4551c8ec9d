"""Normalisation folded into the first convolution, against float64 and against the nodes that it replaces."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from flawline.export.feature_graph import FeatureGraph, cut
from flawline.export.graph import compose
from flawline.export.normalisation import subtract_one_number

SIZE = 24
WEIGHT = np.random.default_rng(1).normal(0, 0.3, (6, 3, 5, 5)).astype(np.float32)
BIAS = np.random.default_rng(2).normal(0, 0.3, 6).astype(np.float32)
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
LIKE_ALL = {"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0)}
BRIGHT = {"mean": (250.0, 240.0, 255.0), "std": (1.0, 2.0, 3.0)}


def network(extra: list[onnx.NodeProto] | None = None, **conv: Any) -> FeatureGraph:
    """A padded convolution `first`, whose border shows what is padded with."""
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["first"], pads=(2, 2, 2, 2), strides=(2, 2), **conv),
        *(extra or []),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", 3, SIZE, SIZE))
    weight = WEIGHT[:, :1] if conv.get("group") == 3 else WEIGHT
    constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(BIAS, "bias")]
    outputs = [onnx.ValueInfoProto(name="first")]
    graph = helper.make_graph(nodes, "padded", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    layers = [node.output[0] for node in nodes]
    return cut(model, layers, SIZE, SIZE, origin="padded")


def composed(graph: FeatureGraph, channels: int, **normalisation: Any) -> onnx.ModelProto:
    model, _ = compose(graph, height=SIZE, width=SIZE, channels=channels, projection=None, **normalisation)
    return onnx.load_from_string(model)


def run(model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"frame": frames})[0])


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def frames(channels: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (2, SIZE, SIZE, channels), dtype=np.uint8)


def normalised(batch: npt.NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    values = (np.broadcast_to(batch, (*batch.shape[:3], 3)) - np.array(mean)) / np.array(std)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize(
    "normalisation", [IMAGENET, LIKE_ALL, {"mean": (0.0, 10.5, 255.0), "std": (1.0, 2.0, 300.0)}, BRIGHT]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_folded_convolution_equals_float64_up_to_the_border(normalisation: dict[str, Any], channels: int) -> None:
    received = run(composed(network(), channels, **normalisation), frames(channels))
    image = normalised(frames(channels), **normalisation)
    weight, bias = torch.from_numpy(WEIGHT).double(), torch.from_numpy(BIAS).double()
    expected = functional.conv2d(image, weight, bias, stride=2, padding=2).numpy()
    assert np.abs(received - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("channels", "normalisation", "expected"),
    [
        (1, IMAGENET, (2, ["Cast", "Transpose", "Sub", "Pad", "Conv"])),
        (1, LIKE_ALL, (1, ["Cast", "Transpose", "Sub", "Conv"])),
        (3, IMAGENET, (3, ["Cast", "Transpose", "Sub", "Conv"])),
    ],
)
def test_convolution_sees_no_more_planes_than_it_must(
    channels: int, normalisation: dict[str, Any], expected: tuple[int, list[str]]
) -> None:
    model = composed(network(), channels, **normalisation)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("weight"))
    assert (weight.dims[1], operators(model)[: len(expected[1])]) == expected


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("graph", [network(), network(group=3)], ids=["folded", "normalised"])
def test_bytes_are_cast_before_anything_else_is_done_with_them(graph: FeatureGraph, layout: str) -> None:
    """As TensorRT demands."""
    model = composed(graph, 3, layout=layout, **IMAGENET)
    assert [node.op_type for node in model.graph.node if "frame" in node.input] == ["Cast"]


@pytest.mark.parametrize(
    "graph",
    [
        network([helper.make_node("AveragePool", ["image"], ["second"], kernel_shape=(2, 2), strides=(2, 2))]),
        network([helper.make_node("Conv", ["image", "weight"], ["second"], strides=(4, 4))]),
        network(group=3),
    ],
    ids=["image read twice", "weights read twice", "convolution in groups"],
)
def test_where_folding_would_not_be_exact_the_image_is_normalised(graph: FeatureGraph) -> None:
    model = composed(graph, 3, **IMAGENET)
    assert operators(model)[:4] == ["Cast", "Transpose", "Mul", "Add"]


@pytest.mark.parametrize(("normalisation", "planes"), [(IMAGENET, 4), (LIKE_ALL, 3), (BRIGHT, 4)])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_one_number_for_all_channels_changes_no_feature(
    normalisation: dict[str, Any], planes: int, layout: str
) -> None:
    before = composed(network(), 3, layout=layout, **normalisation)
    after = onnx.ModelProto.FromString(before.SerializeToString())
    subtract_one_number(after.graph)
    onnx.checker.check_model(after, full_check=True)
    batch = frames(3) if layout == "nhwc" else np.ascontiguousarray(frames(3).transpose(0, 3, 1, 2))
    expected = run(before, batch)
    assert np.abs(run(after, batch) - expected).max() <= 1e-5 * np.abs(expected).max()
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    centred = next(node for node in after.graph.node if node.op_type == "Sub")
    assert constants[centred.input[1]].shape == ()
    assert constants[centred.input[1]] % 1 == 0
    assert next(value for name, value in constants.items() if name.endswith("weight")).shape[1] == planes
    assert set(constants) == {name for node in after.graph.node for name in node.input} & set(constants)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_graph_that_subtracts_one_number_or_normalises_otherwise_stays_as_it_is(channels: int) -> None:
    graph = network() if channels == 1 else network(group=3)
    model = composed(graph, channels, **IMAGENET)
    before = model.SerializeToString(deterministic=True)
    subtract_one_number(model.graph)
    assert model.SerializeToString(deterministic=True) == before
