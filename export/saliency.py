"""Reconstruction, error map and saliency map in one ordinary ONNX graph: the forward and the backward pass of an autoencoder.

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

from typing import TYPE_CHECKING, Literal

import numpy as np

from flawline import __version__
from flawline.export.feature_graph import BATCH, FeatureGraph
from flawline.export.gradients import RULES, Backward, refuse
from flawline.export.nodes import Nodes
from flawline.export.onnx_file import names_read
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx
    from onnx import ModelProto, NodeProto, ValueInfoProto

    from flawline.export.gradients import Shape
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

INPUT = "image"

Output = Literal["reconstruction", "error", "saliency"]

_AXES_ARE_INPUTS = 18


def compose_saliency(
    network: FeatureGraph, outputs: Sequence[Output] = ("reconstruction", "error", "saliency")
) -> ModelProto:
    """Composes the graph.

    Its input is `image`, float32 (N, channels, height, width), what the autoencoder takes. Its outputs are

    - `reconstruction`, float32 (N, channels, height, width);
    - `error`, float32 (N, 1, height, width): the squared error, the mean over the channels for colour, so that the mean of
      the map is the loss;
    - `saliency`, float32 (N, 1, height, width).

    Args:
        network: An autoencoder, cut at its reconstruction alone.
        outputs: Those that are wanted.

    Returns:
        The model, the same for the same network, with the batch N free.

    Raises:
        InputError: The network does not give an image of the size of its input, or a node has no gradient.
    """
    shape = (network.image_channels, network.height, network.width)
    if [(c, h, w) for c, (h, w) in zip(network.channels, network.sizes, strict=True)] != [shape]:
        received = ", ".join(f"{c} x {h} x {w}" for c, (h, w) in zip(network.channels, network.sizes, strict=True))
        raise InputError(f"a network that gives {received}; expected a reconstruction of {' x '.join(map(str, shape))}")
    forward = onnx.compose.add_prefix(network.model, "network/")
    image, y = f"network/{network.input}", f"network/{network.layers[0]}"
    opset = next(entry.version for entry in forward.opset_import if entry.domain in ("", "ai.onnx"))
    before, behind = Nodes(), Nodes()
    before.add("Identity", [INPUT], image)
    behind.add("Identity", [y], "reconstruction")
    residual = behind.add("Sub", [y, image], "maps/residual")
    squared = behind.add("Mul", [residual, residual], "maps/squared")
    _over_channels(behind, "ReduceMean", squared, "error", opset)
    if "saliency" in outputs:
        through = propagate_back(forward, image, y, residual, behind)
        slope = behind.add("Abs", [behind.add("Sub", [through, residual], "maps/gradient")], "maps/slope")
        steepest = _over_channels(behind, "ReduceMax", slope, "maps/steepest", opset)
        # Behind all else: 2 / n would push small gradients out of the range of fp16.
        behind.add("Mul", [steepest, behind.constant("maps/scale", np.float32(2 / np.prod(shape)))], "saliency")
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [*before.nodes, *forward.graph.node, *behind.nodes],
            "saliency",
            [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, (BATCH, *shape))],
            [
                onnx.helper.make_tensor_value_info(
                    name, onnx.TensorProto.FLOAT, (BATCH, shape[0] if name == "reconstruction" else 1, *shape[1:])
                )
                for name in outputs
            ],
            initializer=[*forward.graph.initializer, *behind.constants],
        ),
        opset_imports=list(forward.opset_import),
        ir_version=onnx.helper.find_min_ir_version_for(list(forward.opset_import), ignore_unknown=True),
        producer_name="flawline",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


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


def _over_channels(nodes: Nodes, operator: str, tensor: str, output: str, opset: int) -> str:
    if opset < _AXES_ARE_INPUTS:
        return nodes.add(operator, [tensor], output, axes=[1], keepdims=1)
    return nodes.add(operator, [tensor, nodes.constant(f"{output}/axes", np.array([1]))], output, keepdims=1)


def _shape(value: ValueInfoProto) -> Shape:
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)
