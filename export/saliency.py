"""Saliency of a reconstruction, in ordinary ONNX operators: the backward pass of an autoencoder behind its forward pass.

Feeney and Hughes, "Evaluating the Use of Reconstruction Error for Novelty Localization", 2021: with x an image of n values
and y = g(f(x)) its reconstruction, the error map is r = (x - y)^2 (equation 1), its mean over all values the loss
(equation 2), and the saliency map |d mean(r) / dx| (equation 3), the maximum over the channels for colour. The image
reaches the loss by itself and through the network, whose Jacobian is J:

    d mean(r) / dx = 2 / n (J^T (y - x) - (y - x))

The backward pass is derived here from the nodes of the forward pass, not traced from torch: whatever network comes as an
ONNX file has one, it consists of operators that every engine runs, and it is the same for every version of torch, whose
exporter does not know the backward operators that its tracer would leave.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from flawline.export.gradients import RULES, Backward, refuse
from flawline.export.onnx_file import names_read
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx
    from onnx import ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto

    from flawline.export.gradients import Shape
    from flawline.export.nodes import Nodes
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

_AXES_ARE_INPUTS = 18


def add_saliency(nodes: Nodes, network: ModelProto, image: str, reconstruction: str, output: str) -> None:
    """Writes the saliency map behind an autoencoder.

    Args:
        nodes: Takes the backward pass.
        network: The forward pass, whose sizes are known but for the batch.
        image: Its input, float32 (N, channels, height, width).
        reconstruction: Its output, of the same shape.
        output: What the map will be called: float32 (N, 1, height, width), in the units of the image.

    Raises:
        InputError: A node on the way has no gradient, or no way leads from the image to its reconstruction.
    """
    values = math.prod(dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim[1:])
    residual = nodes.add("Sub", [reconstruction, image], "maps/residual")
    through = propagate_back(network, image, reconstruction, residual, nodes)
    slope = nodes.add("Abs", [nodes.add("Sub", [through, residual], "maps/gradient")], "maps/slope")
    steepest = over_channels(nodes, "ReduceMax", slope, "maps/steepest", network.opset_import)
    # Behind all else: 2 / n would push small gradients out of the range of fp16.
    nodes.add("Mul", [steepest, nodes.constant("maps/scale", np.float32(2 / values))], output)


def propagate_back(model: ModelProto, image: str, output: str, seed: str, nodes: Nodes) -> str:
    """Writes the backward pass of a network: the product of a tensor with its Jacobian.

    Args:
        model: The network, whose sizes are known but for the batch.
        image: Its input.
        output: The tensor whose gradient is given.
        seed: Gradient by the output, of its shape.
        nodes: Takes the backward pass.

    Returns:
        Name of the gradient by the image, of its shape.

    Raises:
        InputError: A node on the way has no gradient, or no way leads from the image to the output.
    """
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in inferred.initializer}
    shapes = {value.name: _shape(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    backward = Backward(nodes, shapes | {name: value.shape for name, value in constants.items()}, constants)
    dependent = _dependent(inferred.node, image)
    gradients: dict[str, list[str]] = {output: [seed]}
    for node in reversed(inferred.node):
        arrived = [name for name in node.output if name in gradients]
        if not arrived or not dependent.intersection(node.input):
            continue
        if node.op_type not in RULES:
            raise refuse(node, "is of an operator without a gradient here")
        if arrived != [node.output[0]]:
            raise refuse(node, f"has a gradient by {', '.join(arrived)}, expected by its first output alone")
        known = RULES[node.op_type](backward, node, _sum(nodes, node.output[0], gradients.pop(node.output[0])))
        for index, name in enumerate(node.input):
            if name not in dependent:
                continue
            if index not in known:
                raise refuse(node, f"depends on the image by its input {name}, for which there is no gradient")
            gradients.setdefault(name, []).append(known[index])
    if image not in gradients:
        raise InputError("the reconstruction does not depend on the image; expected an autoencoder")
    return _sum(nodes, image, gradients[image])


def _dependent(nodes: Iterable[NodeProto], image: str) -> set[str]:
    """The tensors with values that depend on those of the image, and not on its size alone."""
    dependent = {image}
    for node in nodes:
        if node.op_type not in ("Shape", "Size") and dependent.intersection(names_read([node])):
            dependent.update(name for name in node.output if name)
    return dependent


def _sum(nodes: Nodes, tensor: str, gradients: Sequence[str]) -> str:
    """The sum over all ways that lead from a tensor to the output."""
    total = gradients[0]
    for i, other in enumerate(gradients[1:]):
        total = nodes.add("Add", [total, other], f"{tensor}/gradient_sum_{i}")
    return total


def over_channels(nodes: Nodes, operator: str, tensor: str, output: str, opsets: Iterable[OperatorSetIdProto]) -> str:
    """Adds a reduction of (N, channels, height, width) to (N, 1, height, width) as the opset writes it.

    Args:
        nodes: Takes the node.
        operator: Such as `ReduceMax`.
        tensor: What is reduced.
        output: What it becomes.
        opsets: Those of the graph.

    Returns:
        The output.
    """
    opset = next(entry.version for entry in opsets if entry.domain in ("", "ai.onnx"))
    if opset < _AXES_ARE_INPUTS:
        return nodes.add(operator, [tensor], output, axes=[1], keepdims=1)
    return nodes.add(operator, [tensor, nodes.constant(f"{output}/axes", np.array([1]))], output, keepdims=1)


def _shape(value: ValueInfoProto) -> Shape:
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)
