"""Reading ONNX files of others, and walking their graphs with the branches and loops inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx
    from google.protobuf import message as protobuf  # type: ignore[import-untyped]
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    protobuf = LazyModule("google.protobuf.message", "pip install 'flawline[fit]'")

# Read by ONNX Runtime from 1.17 and TensorRT from 10 on.
OPSETS = range(17, 21)

MOST_BYTES = (1 << 31) - 1
"""What one ONNX file can hold: the format counts its bytes in 31 bits."""


def read_network(path: Path) -> ModelProto:
    """Reads a self-contained network.

    Raises:
        InputError: The file is missing, damaged, empty or keeps weights in other files.
    """
    if not path.is_file():
        raise InputError(f"network {path}: no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except protobuf.DecodeError as error:
        raise InputError(f"network {path.name}: damaged, or no ONNX file") from error
    if not model.graph.node:
        raise InputError(f"network {path.name}: an ONNX file with an empty graph")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model.graph)):
        raise InputError(
            f"network {path.name} keeps weights in other files; expected one whole file: "
            "save it again with external data off (torch.onnx.export(..., external_data=False))"
        )
    return model


def is_network(path: Path) -> bool:
    """Whether a file is an ONNX network, wherever it keeps its weights."""
    if not path.is_file() or not 0 < path.stat().st_size <= MOST_BYTES:
        return False
    try:
        # Whatever its suffix, by which the library would choose a format.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except protobuf.DecodeError:
        return False
    return model.ir_version > 0 and len(model.graph.node) > 0


def tensor_names(path: str | Path) -> list[str]:
    """Names of all tensors that the network in an ONNX file computes, in the order of computation."""
    return list(computed_names(read_network(Path(path)).graph))


def at_supported_opset(model: ModelProto, origin: str) -> ModelProto:
    """The network itself, or a copy converted to the nearest of `OPSETS`.

    Raises:
        InputError: It cannot be converted.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset in OPSETS:
        return model
    target = OPSETS[0] if opset < OPSETS[0] else OPSETS[-1]
    try:
        return onnx.version_converter.convert_version(model, target)
    except (onnx.version_converter.ConvertError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise InputError(
            f"network {origin} is of opset {opset} and cannot be converted; "
            f"export it with an opset of {OPSETS[0]} to {OPSETS[-1]}"
        ) from error


def computed_names(graph: GraphProto) -> Iterator[str]:
    """Names of the tensors that a graph computes, in order."""
    return (name for node in graph.node for name in node.output if name)


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those of the branches and loops inside them, which read tensors of the graph around by name."""
    for node in nodes:
        yield node
        for subgraph in _subgraphs(node):
            yield from all_nodes(subgraph.node)


def title(node: NodeProto) -> str:
    """What messages call a node: its name, or that of what it gives, and its operator."""
    return f"{node.name or node.output[0]} ({node.op_type})"


def names_read(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Names of the tensors that nodes read, those read inside their branches included."""
    for node in all_nodes(nodes):
        yield from node.input
        # A branch may hand out a tensor of the graph around it.
        yield from (value.name for subgraph in _subgraphs(node) for value in subgraph.output)


def strip(graph: GraphProto) -> None:
    """Clears notes and metadata: exporters write paths and source lines of their machine there."""
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
        for subgraph in _subgraphs(node):
            strip(subgraph)
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
        for subgraph in _subgraphs(node):
            yield from _tensors(subgraph)
