"""Normalisation of the frame, folded into the network's first convolution where that is exact.

A network expects (x - mean) / std in each of its channels. If its image goes into one convolution and nowhere else, the
weights absorb the division, and what is left is a subtraction. They absorb the three copies of a grey frame too: a plane of
bytes less one whole number, which 8 bits hold without loss. Where the means differ between channels, what that number leaves
over would be a bias, were it not for the border: padding is zero after the normalisation. One more plane, constant inside the
frame and padded with zeros like the other, carries it exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.export.nodes import Nodes
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from onnx import GraphProto, ModelProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

# What the constant plane holds: of the order of the pixels beside it, so that they share one scale in 8 bits.
_PLANE_VALUE = 64.0


def normalise(
    nodes: Nodes,
    network: ModelProto,
    frame: str,
    image: str,
    *,
    channels: int,
    layout: str,
    mean: Sequence[float],
    std: Sequence[float],
    image_channels: int,
    binning: int = 1,
) -> None:
    """Writes what leads from the frame to the network's image.

    Args:
        nodes: Takes the nodes.
        network: The network; where its first convolution takes the normalisation on, its weights change in place.
        frame: Name of the uint8 frame.
        image: Name of the network's input, which the nodes compute.
        channels: Of the frame: 1, or as many as the network has.
        layout: Of the frame, `nhwc` or `nchw`.
        mean: Per channel of the network, in units of 0 to 255.
        std: Likewise.
        image_channels: Channels of the network.
        binning: Pixels of the frame along each axis whose mean is one of the image.

    Raises:
        InputError: Channels, mean or std are not what they must be.
    """
    if channels not in (1, image_channels):
        raise InputError(
            f"frames of {channels} channels for a network of {image_channels}; expected 1 or {image_channels}"
        )
    mean_, std_ = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    fits = mean_.shape == std_.shape == (image_channels,)
    if not fits or not np.isfinite([mean_, std_]).all() or not (std_ > 0).all():
        raise InputError(f"mean {mean} and std {std}; expected {image_channels} finite numbers each, std above zero")
    # Cast first: TensorRT takes bytes, but can do nothing else with them. Other engines take no longer for it.
    pixels = nodes.add("Cast", [frame], "frame_float", to=onnx.TensorProto.FLOAT)
    if layout == "nhwc":
        pixels = nodes.add("Transpose", [pixels], "frame_nchw", perm=(0, 3, 1, 2))
    if binning > 1:
        # Of the bytes, before anything is done to each of them.
        bins = (binning, binning)
        pixels = nodes.add("AveragePool", [pixels], "frame_binned", kernel_shape=bins, strides=bins)
    first = _only_convolution(network.graph, image)
    if first is None:
        # A grey plane becomes three by broadcasting.
        scale = nodes.constant("scale", (1 / std_).astype(np.float32).reshape(1, -1, 1, 1))
        shift = nodes.constant("shift", (-mean_ / std_).astype(np.float32).reshape(1, -1, 1, 1))
        nodes.add("Add", [nodes.add("Mul", [pixels, scale], "frame_scaled"), shift], image)
        return
    weight = onnx.numpy_helper.to_array(network.graph.initializer[first]).astype(np.float64)
    folded = weight / std_.reshape(1, -1, 1, 1)
    if channels > 1:
        nodes.add("Sub", [pixels, nodes.constant("mean", mean_.astype(np.float32).reshape(1, -1, 1, 1))], image)
    else:
        plane = _subtract_one_number(nodes, pixels, image, mean_, folded)
        folded = np.concatenate((folded.sum(axis=1, keepdims=True), plane), axis=1)
    _replace(network.graph, first, folded)


def subtract_one_number(graph: GraphProto) -> None:
    """Rewrites the feature graph of colour frames for 8 bits: one number is subtracted from all channels, not one from each.

    That costs a fourth plane, which does not pay in float.

    Args:
        graph: As `compose` made it; left as it is if it does so already, or normalises otherwise.
    """
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        mean = constants.get(node.input[1]) if node.op_type == "Sub" else None
        first = None if mean is None or mean.size == 1 else _only_convolution(graph, node.output[0])
        if mean is None or first is None:
            continue
        nodes = Nodes()
        weight = onnx.numpy_helper.to_array(graph.initializer[first]).astype(np.float64)
        plane = _subtract_one_number(nodes, node.input[0], node.output[0], mean.reshape(-1).astype(np.float64), weight)
        _replace(graph, first, np.concatenate((weight, plane), axis=1))
        graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == node.input[1]))
        graph.initializer.extend(nodes.constants)
        rewritten = [*graph.node[:index], *nodes.nodes, *graph.node[index + 1 :]]
        del graph.node[:]
        graph.node.extend(rewritten)
        return


def _subtract_one_number(
    nodes: Nodes, pixels: str, image: str, mean: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Writes the subtraction and, where the means differ, the constant plane; returns what the convolution weighs it with."""
    number = np.clip(np.round(mean.mean()), 0, 255)
    left_over: npt.NDArray[np.float64] = (weight * (number - mean).reshape(1, -1, 1, 1)).sum(axis=1, keepdims=True)
    constant = nodes.constant("number", np.float32(number))
    if not left_over.any():
        nodes.add("Sub", [pixels, constant], image)
        return np.asarray(left_over[:, :0])
    value = _PLANE_VALUE if number < 128 else -_PLANE_VALUE
    centred = nodes.add("Sub", [pixels, constant], "frame_centred")
    pads = nodes.constant("plane", np.array((0, 0, 0, 0, 0, 1, 0, 0), np.int64))
    nodes.add("Pad", [centred, pads, nodes.constant("plane_value", np.float32(value))], image)
    return np.asarray(left_over / value)


def _replace(graph: GraphProto, index: int, value: npt.NDArray[np.float64]) -> None:
    """Puts another value in the place of an initializer."""
    name = graph.initializer[index].name
    graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), name))


def _only_convolution(graph: GraphProto, image: str) -> int | None:
    """Index of the initializer that weighs the image, if a plain convolution is all that reads either."""
    readers = [node for node in graph.node if image in node.input]
    if len(readers) != 1 or readers[0].op_type != "Conv" or readers[0].input[0] != image:
        return None
    weight = readers[0].input[1]
    if sum(list(node.input).count(weight) for node in graph.node) != 1:
        return None
    if any(attribute.name == "group" and attribute.i != 1 for attribute in readers[0].attribute):
        return None
    names = [tensor.name for tensor in graph.initializer]
    return names.index(weight) if weight in names else None
