"""The frame's bytes as the quantised input of the first convolution.

A graph that begins with bytes less a whole number (see `normalisation`) needs no arithmetic before its first quantised
convolution: the bytes are its input at the scale 1, the number is their zero point. A transposition moves bytes, a quarter
of what floats would be. A constant plane that is appended becomes a plane of bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt
    import onnx
    from onnx import GraphProto, NodeProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

_LEVELS = range(256)


class ExactInput(NamedTuple):
    """How a graph leads from bytes to its first convolution.

    Attributes:
        tensor: What the convolution reads.
        source: The uint8 tensor that is cast.
        planes: The tensor that a number is subtracted from: the output of the cast or of a transposition behind it.
        zero: What is subtracted.
        between: Names of the outputs of the nodes that bytes need not: Cast, Sub and, for a constant plane, Pad.
        plane: Byte of the constant plane; None without one.
    """

    tensor: str
    source: str
    planes: str
    zero: int
    between: tuple[str, ...]
    plane: int | None


def exact_input(graph: GraphProto, layers: Collection[str]) -> ExactInput | None:
    """Finds how a float32 graph leads from bytes to its first convolution.

    Args:
        graph: Not changed.
        layers: Names of the convolutions that will be quantised.

    Returns:
        None if it begins otherwise, or if anything but a quantised convolution reads what the bytes become.
    """
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    cast = next((node for node in graph.node if node.op_type == "Cast"), None)
    moved = _only_reader(graph, cast, "Transpose")
    centred = _only_reader(graph, cast if moved is None else moved, "Sub")
    if cast is None or centred is None:
        return None
    zero = _byte(constants, centred.input[1], 0)
    between, plane = [cast.output[0], centred.output[0]], None
    padded = _only_reader(graph, centred, "Pad")
    if zero is not None and padded is not None:
        plane = _byte(constants, padded.input[2], zero) if len(padded.input) == 3 else None
        between.append(padded.output[0])
    readers = _readers(graph, between[-1])
    if zero is None or (padded is not None and plane is None):
        return None
    if not readers or any(node.op_type != "Conv" or node.name not in layers for node in readers):
        return None
    return ExactInput(between[-1], cast.input[0], centred.input[0], zero, tuple(between), plane)


def feed_bytes(graph: GraphProto, exact: ExactInput) -> None:
    """Takes the float nodes out of a quantised graph, where they were found before it was quantised.

    The graph may hold constants afterwards that nothing reads.
    """
    quantise = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == exact.tensor)
    read, cast = quantise.output[0], exact.between[0]
    planes = exact.source if exact.planes == cast else exact.planes
    now = {cast: exact.source} | ({} if exact.plane is not None else {read: planes})
    for node in list(graph.node):
        if node.output[0] == read or node.output[0] in exact.between:
            graph.node.remove(node)
        else:
            node.input[:] = [now.get(name, name) for name in node.input]
    for value in [value for value in graph.value_info if value.name == planes]:
        graph.value_info.remove(value)  # it says float
    if exact.plane is not None:
        _append_plane(graph, planes, exact.plane, read)


def _append_plane(graph: GraphProto, planes: str, level: int, output: str) -> None:
    """Adds nodes that put a constant plane behind planes of bytes.

    A plane of them, clipped to the constant, has their batch; and engines put whole planes side by side ten times faster
    than they pad channels.
    """
    first, constant = f"{output}/first", f"{output}/constant"
    values = {"starts": np.array([0]), "ends": np.array([1]), "axes": np.array([1]), "level": np.array(level, np.uint8)}
    names = {name: f"{output}/{name}" for name in values}
    graph.initializer.extend(onnx.numpy_helper.from_array(value, names[name]) for name, value in values.items())
    make = onnx.helper.make_node
    graph.node.extend(
        (
            make("Slice", [planes, names["starts"], names["ends"], names["axes"]], [first], name=first),
            make("Clip", [first, names["level"], names["level"]], [constant], name=constant),
            make("Concat", [planes, constant], [output], name=output, axis=1),
        )
    )


def _byte(constants: Mapping[str, npt.NDArray[np.generic]], name: str, offset: int) -> int | None:
    """A scalar constant plus an offset, if that is a whole number from 0 to 255."""
    value = constants.get(name)
    if value is None or value.size != 1:
        return None
    level = float(value.item()) + offset
    return int(level) if level in _LEVELS else None


def _readers(graph: GraphProto, name: str) -> list[NodeProto]:
    return [node for node in graph.node if name in node.input]


def _only_reader(graph: GraphProto, node: NodeProto | None, operator: str) -> NodeProto | None:
    if node is None:
        return None
    readers = _readers(graph, node.output[0])
    if len(readers) != 1 or readers[0].op_type != operator or readers[0].input[0] != node.output[0]:
        return None
    return readers[0]
