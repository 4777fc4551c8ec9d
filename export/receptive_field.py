"""How far around itself a feature of a network sees: computed from its graph, operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from onnx import ModelProto, NodeProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

_POINTWISE = {
    "Add",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "DequantizeLinear",
    "Div",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Max",
    "Min",
    "Mul",
    "PRelu",
    "QuantizeLinear",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Sub",
    "Sum",
    "Tanh",
}
_WINDOWS = {"AveragePool", "Conv", "MaxPool"}


class Field(NamedTuple):
    """What position i of an axis of a feature map depends on: pixels ``stride * i + first`` to ``stride * i + last``."""

    stride: int
    first: int
    last: int

    @property
    def radius(self) -> int:
        """Pixels that it sees beyond its own cell, ``stride * i`` to ``stride * i + stride - 1``, on the wider side."""
        return max(0, -self.first, self.last - (self.stride - 1))


def receptive_fields(model: ModelProto, image: str, layers: Sequence[str]) -> list[Field]:
    """Receptive field of each layer, the wider of its two axes, along which its stride is the same.

    Args:
        model: The network, with an input (N, c, height, width).
        image: Name of that input.
        layers: Names of feature tensors.

    Raises:
        InputError: A layer depends on more than its surroundings: on a global pooling, a fixed size or the like. Or its
            strides differ along the two axes.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    fields: dict[str, tuple[Field, Field]] = {image: (Field(1, 0, 0), Field(1, 0, 0))}
    for node in model.graph.node:
        inputs = [fields[name] for name in node.input if name in fields]
        if inputs:
            axes = _through(node, inputs, constants)
            fields |= dict.fromkeys(node.output, axes)
    for layer in layers:
        along, across = fields[layer]
        if along.stride != across.stride:
            raise InputError(
                f"layer {layer} has a stride of {along.stride} lines and {across.stride} px; a web needs a network, or layers of "
                "it, with the same stride along both axes"
            )
    return [max(fields[layer], key=lambda field: field.radius) for layer in layers]


def _through(
    node: NodeProto, inputs: Sequence[tuple[Field, Field]], constants: Mapping[str, onnx.TensorProto]
) -> tuple[Field, Field]:
    first = inputs[0]
    if node.op_type in _WINDOWS:
        windows = _windows(node, constants)
        return _slide(first[0], *windows[0]), _slide(first[1], *windows[1])
    if node.op_type == "Pad" and len(node.input) > 1 and node.input[1] in constants:
        pads = onnx.numpy_helper.to_array(constants[node.input[1]])
        if len(pads) == 8:
            return _slide(first[0], 1, 1, int(pads[2]), 1), _slide(first[1], 1, 1, int(pads[3]), 1)
    strides = {tuple(field.stride for field in axes) for axes in inputs}
    if node.op_type in _POINTWISE and len(strides) == 1 and (node.op_type != "Concat" or _axis(node) in (1, -3)):
        return _union([axes[0] for axes in inputs]), _union([axes[1] for axes in inputs])
    raise InputError(
        f"the network is not fully convolutional: {node.op_type} {node.name or node.output[0]} looks beyond the "
        "surroundings of a pixel; a web needs a network, or layers of it, that do not"
    )


def _slide(field: Field, kernel: int, step: int, pad: int, dilation: int) -> Field:
    return Field(
        field.stride * step,
        field.first - pad * field.stride,
        field.last + ((kernel - 1) * dilation - pad) * field.stride,
    )


def _union(fields: Sequence[Field]) -> Field:
    return Field(fields[0].stride, min(field.first for field in fields), max(field.last for field in fields))


def _windows(node: NodeProto, constants: Mapping[str, onnx.TensorProto]) -> list[tuple[int, int, int, int]]:
    """Kernel, step, padding before and dilation, of both axes."""
    given = {attribute.name: list(attribute.ints) for attribute in node.attribute if attribute.type == attribute.INTS}
    texts = {attribute.name: attribute.s for attribute in node.attribute if attribute.type == attribute.STRING}
    if texts.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise InputError(
            f"{node.op_type} {node.name or node.output[0]} pads by the size of its input ({texts['auto_pad'].decode()}); "
            "a web needs a network with paddings of its own"
        )
    kernel = given.get("kernel_shape")
    if kernel is None:
        weight = next((constants[name] for name in node.input[1:2] if name in constants), None)
        if weight is None:
            raise InputError(
                f"{node.op_type} {node.name or node.output[0]} has no size of its own; expected a constant weight"
            )
        kernel = list(weight.dims[2:])
    ones, zeros = [1, 1], [0, 0, 0, 0]
    return list(
        zip(
            kernel,
            given.get("strides", ones),
            given.get("pads", zeros)[:2],
            given.get("dilations", ones),
            strict=True,
        )
    )


def _axis(node: NodeProto) -> int:
    return int(np.array([attribute.i for attribute in node.attribute if attribute.name == "axis"] or [0])[0])
