"""Gradients of ONNX operators, written in ordinary ONNX operators: one small function for each.

A rule takes a node of the forward pass and the gradient by its output, adds nodes to the backward pass, and gives the
gradients by those inputs of the node for which it knows one. Each holds for any batch; all other sizes are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.export.nodes import Nodes
from flawline.export.onnx_file import title
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from onnx import NodeProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Backward:
    """The backward pass while it is written.

    Attributes:
        nodes: Takes its nodes and constants.
        shapes: Of the tensors and constants of the forward pass; None is the batch, which comes first.
        constants: Weights of the forward pass.
    """

    nodes: Nodes
    shapes: Mapping[str, Shape]
    constants: Mapping[str, npt.NDArray[Any]]

    def add(self, node: NodeProto, operator: str, inputs: list[str], what: str = "gradient", **attributes: Any) -> str:
        """Adds a node that is named after one of the forward pass."""
        return self.nodes.add(operator, inputs, f"{node.output[0]}/{what}", **attributes)

    def constant(self, node: NodeProto, what: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Adds a constant that is named after a node of the forward pass."""
        return self.nodes.constant(f"{node.output[0]}/{what}", np.asarray(value, dtype))

    def sizes(self, tensor: str) -> list[int]:
        """Sizes of a tensor behind its first two axes: height and width of maps and of kernels."""
        return [size for size in self.shapes[tensor][2:] if size is not None]

    def weights(self, node: NodeProto) -> str:
        """The constant weights of a node, its second input, for a node that reads them the other way round.

        A copy where both ways see one shape: OpenVINO keeps repacked weights by the constant and its shape, and would
        give the second reader what it packed for the first (seen in 2026.4).

        Raises:
            InputError: They are no constant.
        """
        name = node.input[1]
        if name not in self.constants:
            raise refuse(node, "has weights that are computed")
        weights = self.constants[name]
        if weights.ndim == 2 and weights.shape[0] != weights.shape[1]:
            return str(name)
        return self.nodes.constant(f"{node.output[0]}/weights", weights)


Gradients = dict[int, str]
Rule = Callable[[Backward, "NodeProto", str], Gradients]


def refuse(node: NodeProto, reason: str) -> InputError:
    """What to raise for a node that cannot be differentiated."""
    return InputError(f"node {title(node)} {reason}: its network has no saliency graph; choose the map error or pse")


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _relu(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    zero = backward.constant(node, "zero", 0)
    positive = backward.add(node, "Greater", [node.input[0], zero], "positive")
    return {0: backward.add(node, "Where", [positive, gradient, zero])}


def _leaky_relu(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    slope = backward.constant(node, "slope", _attributes(node).get("alpha", 0.01))
    positive = backward.add(node, "Greater", [node.input[0], backward.constant(node, "zero", 0)], "positive")
    flat = backward.add(node, "Mul", [gradient, slope], "flat")
    return {0: backward.add(node, "Where", [positive, gradient, flat])}


def _sigmoid(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    y = node.output[0]
    rest = backward.add(node, "Sub", [backward.constant(node, "one", 1), y], "rest")
    return {0: backward.add(node, "Mul", [gradient, backward.add(node, "Mul", [y, rest], "slope")])}


def _tanh(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    y = node.output[0]
    squared = backward.add(node, "Mul", [y, y], "squared")
    slope = backward.add(node, "Sub", [backward.constant(node, "one", 1), squared], "slope")
    return {0: backward.add(node, "Mul", [gradient, slope])}


def _unbroadcast(backward: Backward, node: NodeProto, index: int, gradient: str) -> Gradients:
    shape = backward.shapes.get(node.input[index])
    return {index: gradient} if shape == backward.shapes[node.output[0]] else {}


def _add(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    return _unbroadcast(backward, node, 0, gradient) | _unbroadcast(backward, node, 1, gradient)


def _sub(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    negative = backward.add(node, "Neg", [gradient])
    return _unbroadcast(backward, node, 0, gradient) | _unbroadcast(backward, node, 1, negative)


def _mul(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    first, second = (backward.add(node, "Mul", [gradient, node.input[1 - i]], f"gradient_{i}") for i in (0, 1))
    return _unbroadcast(backward, node, 0, first) | _unbroadcast(backward, node, 1, second)


def _gemm(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    attributes = _attributes(node)
    if attributes.get("transA", 0):
        raise refuse(node, "is transposed across the batch")
    return {
        0: backward.add(
            node,
            "Gemm",
            [gradient, backward.weights(node)],
            alpha=attributes.get("alpha", 1.0),
            transB=1 - attributes.get("transB", 0),
        )
    }


def _matmul(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    if len(backward.shapes[node.input[1]]) != 2:
        raise refuse(node, "is no product with a matrix")
    transposed = backward.add(node, "Transpose", [backward.weights(node)], "transposed", perm=(1, 0))
    return {0: backward.add(node, "MatMul", [gradient, transposed])}


def _conv(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    """The transposed convolution by the same weights, brought to the size of the input.

    Rows and columns at the end that no window reached get zeros: fewer are cut off there, and where none is left to be
    spared, zeros are appended. `output_padding` would say the same, but not all engines take it where it exceeds the cut.
    """
    geometry = _geometry(backward, node)
    sizes, outputs = (backward.sizes(name) for name in (node.input[0], node.output[0]))
    cut, missing = [], []
    for size, output, stride, reach, start in zip(
        sizes, outputs, geometry.strides, geometry.reaches, geometry.starts, strict=True
    ):
        end = stride * (output - 1) + reach + 1 - start - size
        cut.append(max(end, 0))
        missing.append(max(-end, 0))
    name = "gradient" if not any(missing) else "gradient_unpadded"
    result = backward.add(
        node,
        "ConvTranspose",
        [gradient, backward.weights(node)],
        name,
        **geometry.attributes,
        pads=(*geometry.starts, *cut),
    )
    if any(missing):
        pads = backward.constant(node, "missing", (0,) * (2 + len(cut)) + (0, 0, *missing), np.int64)
        result = backward.add(node, "Pad", [result, pads])
    return {0: result}


def _conv_transpose(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    geometry = _geometry(backward, node)
    attributes = _attributes(node)
    padding = attributes.get("output_padding", [0] * len(geometry.strides))
    if "output_shape" in attributes or any(p >= s for p, s in zip(padding, geometry.strides, strict=True)):
        raise refuse(node, "is padded to an output that its windows do not reach")
    pads = (*geometry.starts, *geometry.ends)
    return {0: backward.add(node, "Conv", [gradient, backward.weights(node)], **geometry.attributes, pads=pads)}


@dataclass(frozen=True)
class _Geometry:
    """Of a convolution, per axis: strides, kernel minus one in pixels, padding before and behind."""

    attributes: dict[str, Any]
    strides: list[int]
    reaches: list[int]
    starts: list[int]
    ends: list[int]


def _geometry(backward: Backward, node: NodeProto) -> _Geometry:
    attributes = _attributes(node)
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise refuse(node, f"pads by the rule {attributes['auto_pad'].decode(errors='replace')}")
    kernel = backward.sizes(node.input[1])
    axes = len(kernel)
    strides = list(attributes.get("strides", [1] * axes))
    dilations = list(attributes.get("dilations", [1] * axes))
    pads = list(attributes.get("pads", [0] * (2 * axes)))
    return _Geometry(
        attributes={
            "group": attributes.get("group", 1),
            "strides": strides,
            "dilations": dilations,
            "kernel_shape": kernel,
        },
        strides=strides,
        reaches=[dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)],
        starts=pads[:axes],
        ends=pads[axes:],
    )


def _batch_normalization(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    attributes = _attributes(node)
    if attributes.get("training_mode", 0) or not all(name in backward.constants for name in node.input[1:]):
        raise refuse(node, "normalises by the batch itself")
    scale, variance = (backward.constants[node.input[i]].astype(np.float64) for i in (1, 4))
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    rank = len(backward.shapes[node.input[0]])
    constant = backward.constant(node, "slope", factor.reshape(-1, *(1,) * (rank - 2)))
    return {0: backward.add(node, "Mul", [gradient, constant])}


def _reshape(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    batch, *rest = backward.shapes[node.input[0]]
    known = [size for size in rest if size is not None]
    if batch is not None or len(known) < len(rest):
        raise refuse(node, "mixes the images of a batch")
    shape = backward.constant(node, "shape", (-1, *known), np.int64)
    return {0: backward.add(node, "Reshape", [gradient, shape])}


def _transpose(backward: Backward, node: NodeProto, gradient: str) -> Gradients:
    rank = len(backward.shapes[node.input[0]])
    order = _attributes(node).get("perm", range(rank)[::-1])
    return {0: backward.add(node, "Transpose", [gradient], perm=np.argsort(order).tolist())}


def _identity(_backward: Backward, _node: NodeProto, gradient: str) -> Gradients:
    return {0: gradient}


RULES: dict[str, Rule] = {
    "Add": _add,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "Identity": _identity,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Mul": _mul,
    "Relu": _relu,
    "Reshape": _reshape,
    "Sigmoid": _sigmoid,
    "Squeeze": _reshape,
    "Sub": _sub,
    "Tanh": _tanh,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
"""The rule of each operator that has one."""
