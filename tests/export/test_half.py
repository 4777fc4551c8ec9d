"""Feature graphs in float16, against the float graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flawline.export.calibrated import calibrate
from flawline.export.half import to_fp16
from flawline.runtime.errors import InputError


def scaled(features: bytes, name: str, factor: float) -> bytes:
    model = onnx.load_from_string(features)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    return model.SerializeToString()


def test_features_stay_close(lite0: Any) -> None:
    assert max(lite0.errors(lite0.run(to_fp16(lite0.features, lite0.calibrated)))) < 0.02


@pytest.mark.shared_data
def test_features_of_real_images_stay_close(resnet18: Any) -> None:
    assert max(resnet18.errors(resnet18.run(to_fp16(resnet18.features, resnet18.calibrated)))) < 0.005


def test_everything_between_bytes_and_float_maps_is_float16(lite0: Any) -> None:
    model = onnx.load_from_string(to_fp16(lite0.features))
    float_model = onnx.load_from_string(lite0.features)
    assert model.graph.input == float_model.graph.input
    assert model.graph.output == float_model.graph.output
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in model.graph.initializer}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert [node.attribute[0].i for node in casts] == [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT]
    assert model.producer_name == "flawline"
    assert len(model.SerializeToString()) < 0.52 * len(lite0.features)


def test_the_same_bytes_every_time(tiny: Callable[[int], Any]) -> None:
    assert to_fp16(tiny(1).features) == to_fp16(tiny(1).features)


def test_a_weight_beyond_float16_is_named(tiny: Callable[[int], Any]) -> None:
    with pytest.raises(InputError, match=r"weight network/weight_2 reaches .*; float16 ends at 65504"):
        to_fp16(scaled(tiny(1).features, "network/weight_2", 1e6))


def test_a_tensor_beyond_float16_is_named(tiny: Callable[[int], Any]) -> None:
    features = scaled(tiny(1).features, "network/weight_2", 5e4)
    with pytest.raises(InputError, match=r"tensor network/conv_2 reaches .*; float16 ends at 65504"):
        to_fp16(features, calibrate(features, tiny(1).calibration, 0))


def test_an_operator_without_float16_is_named() -> None:
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["pixels", "scale"], ["levels"], name="rounding"),
        helper.make_node("Cast", ["levels"], ["features_0"], to=TensorProto.FLOAT),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ("N", 1, 8, 8))
    maps = helper.make_tensor_value_info("features_0", TensorProto.FLOAT, ("N", 1, 8, 8))
    scale = numpy_helper.from_array(np.float32(1), "scale")
    graph = helper.make_graph(nodes, "rounding", [frame], [maps], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(InputError, match=r"layer rounding \(QuantizeLinear\) has no float16 form"):
        to_fp16(model.SerializeToString())
