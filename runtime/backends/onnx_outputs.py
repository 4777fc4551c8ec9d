"""ONNX files cut to some of their outputs, so that no engine computes what nobody reads.

Asked for some outputs of a graph, ONNX Runtime runs the nodes behind all of them; a graph that has these alone, it prunes.
So does OpenVINO. What is fused across a tensor that only the dropped part read is fused then, too.
"""

from collections.abc import Collection, Iterator

from flawline.runtime.backends import onnx_file
from flawline.runtime.backends import onnx_wire as wire
from flawline.runtime.backends.onnx_wire import Field, fields, once


def outputs_of(features: bytes) -> int:
    """How many outputs the graph of an ONNX file has.

    Raises:
        ValueError: It is no such file.
    """
    return sum(
        field.number == wire.GRAPH_OUTPUT
        for graph in once(memoryview(features), wire.MODEL_GRAPH)
        for field in fields(graph)
    )


def cut(features: bytes, needed: Collection[int]) -> bytes:
    """An ONNX file that gives some of its outputs, with the nodes and constants behind these alone.

    Args:
        features: Bytes of the ONNX file; checked as `onnx_file.check` does, on whose order of nodes the cut relies.
        needed: Indices of the outputs to keep, which stay in their order.

    Returns:
        Bytes of the smaller file; what is kept is written as it was.

    Raises:
        ValueError: It is no file that `onnx_file.check` lets pass.
    """
    onnx_file.check(features)
    model: list[bytes | memoryview] = []
    for field in fields(memoryview(features)):
        if field.number != wire.MODEL_GRAPH:
            model.append(field.raw)
            continue
        graph = _kept(list(fields(field.message)), needed)
        model += [wire.head(wire.MODEL_GRAPH, sum(map(len, graph))), *graph]
    return b"".join(model)


def _kept(graph: list[Field], needed: Collection[int]) -> list[memoryview]:
    outputs = [field for field in graph if field.number == wire.GRAPH_OUTPUT]
    kept = [output for index, output in enumerate(outputs) if index in needed]
    read = {name for output in kept for name in _names(output.message, wire.VALUE_NAME)}
    # A node reads what nodes before it made: those behind the outputs are found in one pass, from the last to the first.
    for field in reversed(graph):
        if field.number == wire.GRAPH_NODE and not read.isdisjoint(_names(field.message, wire.NODE_OUTPUT)):
            kept.append(field)
            read.update(_read_by(field.message))
    kept += [field for field in graph if field.number == wire.GRAPH_INITIALIZER and not read.isdisjoint(_named(field))]
    chosen = {id(field) for field in kept}
    cuttable = (wire.GRAPH_OUTPUT, wire.GRAPH_NODE, wire.GRAPH_INITIALIZER, wire.GRAPH_VALUE_INFO)
    # Shapes of tensors in between are left out altogether: engines find them anew.
    return [field.raw for field in graph if field.number not in cuttable or id(field) in chosen]


def _read_by(node: memoryview) -> Iterator[bytes]:
    """What a node reads, its branches included, which read names around them."""
    yield from _names(node, wire.NODE_INPUT)
    for attribute in fields(node):
        if attribute.number != wire.NODE_ATTRIBUTE:
            continue
        for inner in fields(attribute.message):
            if inner.number in (wire.ATTRIBUTE_GRAPH, wire.ATTRIBUTE_GRAPHS):
                yield from _read_within(inner.message)


def _read_within(branch: memoryview) -> Iterator[bytes]:
    for field in fields(branch):
        if field.number == wire.GRAPH_NODE:
            yield from _read_by(field.message)
        elif field.number == wire.GRAPH_OUTPUT:
            yield from _names(field.message, wire.VALUE_NAME)


def _named(initializer: Field) -> Iterator[bytes]:
    return _names(initializer.message, wire.TENSOR_NAME)


def _names(message: memoryview, number: int) -> Iterator[bytes]:
    """The names in a field; an empty one stands for an optional tensor that is not there."""
    return (bytes(field.message) for field in fields(message) if field.number == number and field.message)
