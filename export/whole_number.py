"""A colour frame centred on one whole number, so that its bytes can be the input of an 8-bit convolution.

In float a colour frame is centred on a mean per channel, which costs nothing. In 8 bits one number for all channels saves
the subtraction and the rounding. What it leaves over of each mean is carried by one more plane, constant inside the frame and
padded with zeros like the others, as `normalisation` does for grey frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    from onnx import GraphProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

# Of the order of the pixels beside it; its byte, which is this above or below the number, stays within 0 to 255.
_PLANE = 64.0


def centre_on_whole_number(graph: GraphProto) -> None:
    """Rewrites bytes less a mean per channel into bytes less a whole number and a constant plane, in place.

    A graph that begins otherwise is left as it is, and so is one whose centred frame more than one plain convolution
    reads.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses = [name for node in graph.node for name in node.input]
    index, subtract = next(((i, node) for i, node in enumerate(graph.node) if node.op_type == "Sub"), (0, None))
    if subtract is None or subtract.input[1] not in constants or uses.count(subtract.input[1]) != 1:
        return
    image = subtract.output[0]
    givers = [node.op_type for node in graph.node if subtract.input[0] in node.output]
    readers = [node for node in graph.node if image in node.input]
    if givers != ["Cast"] or [node.op_type for node in readers] != ["Conv"] or uses.count(image) != 1:
        return
    weight = constants.get(readers[0].input[1])
    mean = onnx.numpy_helper.to_array(constants[subtract.input[1]]).astype(np.float64)
    if weight is None or uses.count(weight.name) != 1 or mean.shape != (1, weight.dims[1], 1, 1) or mean.size == 1:
        return
    zero = np.round(mean.mean())
    if not 0 <= zero <= 255:
        return
    plane = _PLANE if zero < 128 else -_PLANE
    values = onnx.numpy_helper.to_array(weight).astype(np.float64)
    rest = (values * (zero - mean)).sum(axis=1, keepdims=True) / plane
    widened = np.concatenate((values, rest), axis=1).astype(np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(widened, weight.name))
    constants[subtract.input[1]].CopyFrom(onnx.numpy_helper.from_array(np.float32(zero), subtract.input[1]))
    subtract.output[0] = f"{image}/centred"
    pads = onnx.numpy_helper.from_array(np.array((0, 0, 0, 0, 0, 1, 0, 0), np.int64), f"{image}/pads")
    value = onnx.numpy_helper.from_array(np.array(plane, np.float32), f"{image}/value")
    graph.initializer.extend((pads, value))
    inputs = [subtract.output[0], pads.name, value.name]
    graph.node.insert(index + 1, onnx.helper.make_node("Pad", inputs, [image], name=image))
