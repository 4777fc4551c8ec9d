"""An ONNX network cut at its feature layers: its shapes are known, and it carries nothing but what it computes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.detectors.digest import sha256_of
from flawline.export.onnx_file import (
    all_nodes,
    at_supported_opset,
    computed_names,
    names_read,
    read_network,
    strip,
)
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, inliner
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    inliner = LazyModule("onnx.inliner", "pip install 'flawline[fit]'")

BATCH = "N"


@dataclass(frozen=True)
class FeatureGraph:
    """A network from image to feature maps.

    Attributes:
        model: One float32 input (N, image_channels, height, width); one float32 output (N, c, h, w) per layer.
        input: Name of the input tensor.
        image_channels: 1 or 3.
        height: Of the input, in pixels.
        width: Of the input, in pixels.
        layers: Names of the output tensors.
        channels: Channels of each layer.
        sizes: Height and width of each layer's map.
        sha256: Hash of the file it was read from; of the model's bytes where there was none.
    """

    model: ModelProto
    input: str
    image_channels: int
    height: int
    width: int
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    sha256: str

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per position of each layer; rounded up where the input is not a multiple of it."""
        return tuple(max(-(-self.height // h), -(-self.width // w)) for h, w in self.sizes)

    @property
    def depth(self) -> int:
        """Channels of all layers together: the dimension of an embedding that is not projected."""
        return sum(self.channels)


def load_backbone(path: str | Path, layers: Sequence[str], height: int, width: int) -> FeatureGraph:
    """Reads any network from an ONNX file and cuts it at the named tensors.

    Args:
        path: A self-contained ONNX file.
        layers: Names of the feature tensors; `tensor_names` lists what there is.
        height: Of the input, in pixels.
        width: Of the input, in pixels.

    Raises:
        InputError: The file is no ONNX network of one float32 NCHW image, keeps weights in other files, has a fixed
            batch or another fixed size, or lacks a tensor.
    """
    path = Path(path)
    model = read_network(path)
    try:
        graph = cut(model, layers, height, width, origin=path.name)
    except (ValueError, TypeError) as error:  # names that are not UTF-8, types that do not exist
        raise InputError(f"network {path.name}: damaged ({error})") from error
    return replace(graph, sha256=sha256_of(path))


def cut(model: ModelProto, layers: Sequence[str], height: int, width: int, *, origin: str) -> FeatureGraph:
    """Cuts a network at the named tensors, for one input size and any batch.

    Names of source files and other traces of the machine that exported the network are left out.

    Args:
        model: The network; not changed.
        layers: Names of the feature tensors.
        height: Of the input, in pixels.
        width: Of the input, in pixels.
        origin: What messages call the network.

    Raises:
        InputError: As for `load_backbone`.
    """
    model = inliner.inline_local_functions(at_supported_opset(model, origin))
    image, image_channels = _image_input(model.graph, height, width, origin)
    computed = set(computed_names(model.graph))
    _check_layers(layers, computed, origin)
    nodes, used = _ancestors(model.graph, layers)
    graph = onnx.helper.make_graph(
        nodes,
        "features",
        [onnx.helper.make_tensor_value_info(image, onnx.TensorProto.FLOAT, (BATCH, image_channels, height, width))],
        [onnx.ValueInfoProto(name=name) for name in layers],
        initializer=[tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    strip(graph)
    domains = {"", "ai.onnx", *(node.domain for node in all_nodes(nodes))}
    opsets = [entry for entry in model.opset_import if entry.domain in domains]
    ir_version = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    result = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    try:
        result = onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(result, full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"network {origin} does not take images of {height} x {width}: {reason}") from error
    shapes = [_map_shape(value, origin) for value in result.graph.output]
    del result.graph.value_info[:]
    return FeatureGraph(
        model=result,
        input=image,
        image_channels=image_channels,
        height=height,
        width=width,
        layers=tuple(layers),
        channels=tuple(channels for channels, _, _ in shapes),
        sizes=tuple((h, w) for _, h, w in shapes),
        sha256=hashlib.sha256(result.SerializeToString(deterministic=True)).hexdigest(),
    )


def _image_input(graph: GraphProto, height: int, width: int, origin: str) -> tuple[str, int]:
    """Name and channels of the only input, which must accept any batch of the given size."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise InputError(f"network {origin} has the inputs {names}; expected one image")
    tensor = inputs[0].type.tensor_type
    dimensions = tensor.shape.dim
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dimensions]
    expected = "expected float32 (N, 3 or 1, height, width)"
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        raise InputError(f"network {origin}: input {inputs[0].name} is not of type float32; {expected}")
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise InputError(f"network {origin}: input {inputs[0].name} has the shape {tuple(shape)}; {expected}")
    if any(isinstance(fixed, int) and fixed != size for fixed, size in zip(shape[2:], (height, width), strict=True)):
        raise InputError(
            f"network {origin} takes images of {shape[2]} x {shape[3]}, received the size {height} x {width}; "
            "choose its size, or export it with dynamic height and width"
        )
    return inputs[0].name, int(shape[1])


def _check_layers(layers: Sequence[str], computed: set[str], origin: str) -> None:
    if not layers or len(set(layers)) != len(layers):
        raise InputError(f"layers {', '.join(layers) or '(none)'}: expected different tensors of network {origin}")
    for name in layers:
        if name not in computed:
            close = ", ".join(get_close_matches(name, sorted(computed), n=3, cutoff=0.4)) or "nothing close"
            raise InputError(
                f"network {origin} computes no tensor {name} among its {len(computed)}; nearest: {close}. "
                "List them: python -c 'import sys, flawline.export.graph as g; "
                f'print(*g.tensor_names(sys.argv[1]), sep="\\n")\' {origin}'
            )


def _ancestors(graph: GraphProto, layers: Sequence[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes that the layers need, in order, and the names of all tensors these read."""
    used = set(layers)
    nodes = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            nodes.append(node)
            used.update(names_read([node]))
    return nodes[::-1], used


def _map_shape(value: ValueInfoProto, origin: str) -> tuple[int, int, int]:
    tensor = value.type.tensor_type
    dimensions = list(tensor.shape.dim)
    if (
        tensor.elem_type != onnx.TensorProto.FLOAT
        or len(dimensions) != 4
        or not all(dim.dim_value for dim in dimensions[1:])
    ):
        shape = tuple(dim.dim_param or dim.dim_value or "?" for dim in dimensions)
        raise InputError(f"network {origin}: tensor {value.name} has the shape {shape}; expected float32 (N, c, h, w)")
    if dimensions[0].HasField("dim_value"):
        raise InputError(
            f"network {origin}: tensor {value.name} has a fixed batch of {dimensions[0].dim_value}; "
            "export the network with a dynamic batch"
        )
    _, channels, height, width = (dim.dim_value for dim in dimensions)
    return channels, height, width
