"""What an ONNX file must hold to before an engine that trusts it may read it: nothing that makes it loop or look elsewhere."""

import re
from collections.abc import Set
from typing import Final

from flawline.runtime.backends import onnx_wire as wire
from flawline.runtime.backends.onnx_wire import fields, once

_NEWEST_OPSET: Final = 1000
_DEEPEST: Final = 8

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
    for field in fields(model):
        if field.number == wire.MODEL_OPSET:
            for inner, version, _ in fields(field.message):
                if inner == wire.OPSET_VERSION and not (isinstance(version, int) and version <= _NEWEST_OPSET):
                    raise ValueError(f"its operators are of version {version}; expected at most {_NEWEST_OPSET}")
        elif field.number == wire.MODEL_FUNCTION:
            raise ValueError("it defines operators of its own; expected those of ONNX")
    for graph in once(model, wire.MODEL_GRAPH):
        _check_graph(graph, frozenset(), 0)


def _check_graph(graph: memoryview, outer: Set[bytes], depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"its graphs are nested more than {_DEEPEST} deep")
    known = {b"", *outer}
    nodes = []
    for field in fields(graph):
        if field.number == wire.GRAPH_NODE:
            nodes.append(field.message)
        elif field.number in (wire.GRAPH_INITIALIZER, wire.GRAPH_INPUT):
            name = wire.TENSOR_NAME if field.number == wire.GRAPH_INITIALIZER else wire.VALUE_NAME
            known.update(map(bytes, once(field.message, name)))
    for node in nodes:
        made = []
        for field in fields(node):
            if field.number == wire.NODE_INPUT and bytes(field.message) not in known:
                missing = bytes(field.message).decode("utf-8", "replace")
                raise ValueError(f"a node reads {missing!r}, which no node before it makes")
            if field.number == wire.NODE_OUTPUT:
                made.append(bytes(field.message))
            elif field.number == wire.NODE_ATTRIBUTE:
                attribute = field.message
                graphs = (inner.message for inner in fields(attribute) if inner.number == wire.ATTRIBUTE_GRAPHS)
                for branch in (*once(attribute, wire.ATTRIBUTE_GRAPH), *graphs):
                    _check_graph(branch, known, depth + 1)
        for output in made:
            if output and output in known:
                twice = output.decode("utf-8", "replace")
                raise ValueError(f"a node makes {twice!r}, which is there already; expected a name of its own")
            known.add(output)
