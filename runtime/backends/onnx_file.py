"""What an ONNX file must hold to before an engine that trusts it may read it: nothing that makes it loop or look elsewhere.

Reads the wire format of Protocol Buffers as far as that takes; the numbers of fields are those of `onnx.proto`.
"""

import re
from collections.abc import Iterator, Set
from typing import Final

_NEWEST_OPSET: Final = 1000
_DEEPEST: Final = 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION, _OPSET_VERSION = 7, 8, 25, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT = 1, 5, 11
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VALUE_NAME, _TENSOR_NAME = 1, 8

# A tensor kept in another file has an entry whose key (field 1, 8 bytes) is "location". Both numbers may be written
# with superfluous zeros, the first also with bits beyond the 32 that are read of it.
_LOCATION = re.compile(rb"(?:\x0a|\x8a\x80*[\x00-\x7f])(?:\x08|\x88\x80*\x00)location")


def check(features: bytes) -> None:
    """Refuses what an engine would hang on or read from elsewhere; whether the rest is a graph the engine says.

    Args:
        features: Bytes of the ONNX file.

    Raises:
        ValueError: It is no such file, its operators are of a version that cannot be, a node reads what no node before it
            made or makes what is there already (ONNX asks for both, and they rule out cycles), a field is given twice
            that engines take once, or tensors are kept in another file.
    """
    if b"location" in features and _LOCATION.search(features):
        raise ValueError("it keeps tensors in another file; expected a file that is whole")
    model = memoryview(features)
    for number, value in _fields(model):
        if number == _MODEL_OPSET:
            for inner, version in _fields(_message(value)):
                if inner == _OPSET_VERSION and not (isinstance(version, int) and version <= _NEWEST_OPSET):
                    raise ValueError(f"its operators are of version {version}; expected at most {_NEWEST_OPSET}")
        elif number == _MODEL_FUNCTION:
            raise ValueError("it defines operators of its own; expected those of ONNX")
    for graph in _once(model, _MODEL_GRAPH):
        _check_graph(graph, frozenset(), 0)


def _check_graph(graph: memoryview, outer: Set[bytes], depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"its graphs are nested more than {_DEEPEST} deep")
    known = {b"", *outer}
    nodes = []
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            nodes.append(_message(value))
        elif number in (_GRAPH_INITIALIZER, _GRAPH_INPUT):
            field = _TENSOR_NAME if number == _GRAPH_INITIALIZER else _VALUE_NAME
            known.update(map(bytes, _once(_message(value), field)))
    for node in nodes:
        made = []
        for number, value in _fields(node):
            if number == _NODE_INPUT and bytes(_message(value)) not in known:
                name = bytes(_message(value)).decode("utf-8", "replace")
                raise ValueError(f"a node reads {name!r}, which no node before it makes")
            if number == _NODE_OUTPUT:
                made.append(bytes(_message(value)))
            elif number == _NODE_ATTRIBUTE:
                attribute = _message(value)
                graphs = (_message(each) for inner, each in _fields(attribute) if inner == _ATTRIBUTE_GRAPHS)
                for branch in (*_once(attribute, _ATTRIBUTE_GRAPH), *graphs):
                    _check_graph(branch, known, depth + 1)
        for output in made:
            if output and output in known:
                name = output.decode("utf-8", "replace")
                raise ValueError(f"a node makes {name!r}, which is there already; expected a name of its own")
            known.add(output)


def _once(message: memoryview, field: int) -> list[memoryview]:
    """The value of a field, if it is there. Of two, a reader would take the last, or both merged into one."""
    values = [_message(value) for number, value in _fields(message) if number == field]
    if len(values) > 1:
        raise ValueError(f"it holds field {field} of a message {len(values)} times; expected it once")
    return values


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an integer, or the bytes of anything else."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        if key >> 32:
            # Read as 32 bits it would be another field.
            raise ValueError("it is no ONNX file")
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is no ONNX file")
        if length > len(message) - position:
            raise ValueError("it ends early, or is no ONNX file")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value & (1 << 64) - 1, position + index + 1
    raise ValueError("it ends early, or is no ONNX file")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no ONNX file")
    return value
