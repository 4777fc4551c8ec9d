"""Bytes take the place of the float nodes before the first quantised convolution, however the graph leads there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import onnx
import pytest

from flawline.export.quantise import quantise
from flawline.runtime.precisions import Quantised


def bytes_transposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph as earlier versions composed it, which transposed the frame before they cast it."""
    earlier = onnx.ModelProto.FromString(model.SerializeToString())
    cast, transpose = earlier.graph.node[:2]
    assert (cast.op_type, transpose.op_type) == ("Cast", "Transpose")
    names = (list(cast.input), list(cast.output), list(transpose.output))
    first, second = onnx.NodeProto(), onnx.NodeProto()
    first.CopyFrom(transpose)
    second.CopyFrom(cast)
    cast.CopyFrom(first)
    transpose.CopyFrom(second)
    for node, takes, gives in ((cast, names[0], names[1]), (transpose, names[1], names[2])):
        node.input[:], node.output[:] = takes, gives
    (value,) = (value for value in earlier.graph.value_info if value.name == names[1][0])
    value.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    height, width, channels = (value.type.tensor_type.shape.dim[axis].dim_value for axis in (1, 2, 3))
    for axis, size in zip((1, 2, 3), (channels, height, width), strict=True):
        value.type.tensor_type.shape.dim[axis].dim_value = size
    return earlier


@pytest.mark.parametrize("precision", get_args(Quantised))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_graph_of_an_earlier_version_is_quantised_alike(
    precision: Quantised, channels: int, tiny: Callable[[int], Any]
) -> None:
    network = tiny(channels)
    earlier = replace(network.calibrated, model=bytes_transposed(network.calibrated.model))
    expected = network.run(quantise(network.calibrated, precision))
    received = network.run(quantise(earlier, precision))
    for got, want in zip(received, expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("precision", ["int8", "int8-openvino"])
def test_a_transposition_of_the_quantised_input_moves_bytes(precision: Quantised, tiny: Callable[[int], Any]) -> None:
    model = onnx.load_from_string(quantise(tiny(3).calibrated, precision))
    (transpose,) = (node for node in model.graph.node if node.op_type == "Transpose")
    assert list(transpose.input) == ["frame"]
