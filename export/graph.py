"""One ONNX file from the uint8 frame to projected feature maps.

Projection and upsampling are linear and commute: `P concat(up(f_l)) = sum_l up(P_l f_l)`, with `P_l` the columns of `P`
that belong to layer l. So every resolution is projected where it is, by a 1x1 convolution, and no map is ever held at the
depth of the network; the sum over resolutions is left to the kernel behind the graph.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from flawline.export.feature_graph import FeatureGraph, cut, load_backbone
from flawline.export.frame_graph import INPUT, write_frame_graph
from flawline.export.nodes import Nodes
from flawline.export.normalisation import normalise
from flawline.export.onnx_file import tensor_names
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

__all__ = ["FeatureGraph", "compose", "cut", "load_backbone", "tensor_names"]


def compose(
    graph: FeatureGraph,
    *,
    height: int,
    width: int,
    channels: int,
    layout: Literal["nhwc", "nchw"] = "nhwc",
    mean: Sequence[float],
    std: Sequence[float],
    projection: npt.NDArray[np.float32] | None,
    map_stride: int | None = None,
    map_size: tuple[int, int] | None = None,
    crop: int = 0,
    binning: int = 1,
) -> tuple[bytes, list[tuple[str, int, int]]]:
    """Composes normalisation, network and projection into one graph.

    Layers finer than the map are averaged down to it; layers of one resolution share one convolution; each coarser
    resolution has its own and stays coarse. The graph's input `frame` is uint8 (N, height, width,
    channels), or (N, channels, height, width) in the layout nchw.

    Args:
        graph: The network, cut at its layers.
        height: Of the frame, in pixels; that of the graph times `binning`.
        width: Likewise.
        channels: Of the frame: 3 (RGB), or 1 (grey, given to every channel of the network).
        layout: Order of the frame's axes.
        mean: Subtracted from the frame, one number per channel of the network, in units of 0 to 255.
        std: What the frame is divided by after that, likewise.
        projection: float32 (d, D), D the channels of all layers together, in the order of `graph.layers`. None leaves
            every layer in channels of its own, zeros elsewhere, so that d = D.
        map_stride: Frame pixels per position of the map.
        map_size: Height and width of the map, instead of its stride. Without either it is that of the finest layer.
        crop: Frame pixels on each side that the maps leave out; a multiple of every layer's stride.
        binning: Frame pixels along each axis whose mean is one pixel of the network's image.

    Returns:
        The ONNX file, the same bytes for the same arguments, and (name, height, width) of its outputs, finest first:
        float32 (N, d, height, width) each. The finest is of the map's size.

    Raises:
        InputError: Shapes that do not go together.
    """
    if (height, width) != (graph.height * binning, graph.width * binning):
        raise InputError(
            f"frames of {height} x {width} for a network that was cut for {graph.height} x {graph.width}"
            + ("" if binning == 1 else f" and bins of {binning} x {binning}")
        )
    network = onnx.compose.add_prefix(graph.model, "network/")
    image, layers = f"network/{graph.input}", [f"network/{name}" for name in graph.layers]

    before, behind = Nodes(), Nodes()
    if crop:
        layers, graph = _crop(behind, graph, layers, crop, binning)
    size = _map_size(graph, (height - 2 * crop, width - 2 * crop), map_stride, map_size)
    _check_projection(graph, projection)
    normalise(
        before,
        network,
        INPUT,
        image,
        channels=channels,
        layout=layout,
        mean=mean,
        std=std,
        image_channels=graph.image_channels,
        binning=binning,
    )
    resolutions = _to_map(behind, graph, layers, size)
    columns = np.cumsum((0, *graph.channels))
    outputs = []
    for i, (resolution, members) in enumerate(resolutions.items()):
        name = f"features_{i}"
        spans = [(int(columns[j]), int(columns[j + 1])) for j, _ in members]
        tensors = [tensor for _, tensor in members]
        if projection is None:
            _place(behind, tensors, spans, graph.depth, name)
        else:
            _project(behind, tensors, np.hstack([projection[:, start:stop] for start, stop in spans]), name)
        outputs.append((name, *resolution))

    dimension = graph.depth if projection is None else len(projection)
    features = write_frame_graph(
        "features",
        (channels, height, width),
        layout,
        {name: (dimension, h, w) for name, h, w in outputs},
        [*before.nodes, *network.graph.node, *behind.nodes],
        [*before.constants, *network.graph.initializer, *behind.constants],
        network.opset_import,
    )
    return features, outputs


def _crop(
    nodes: Nodes, graph: FeatureGraph, tensors: Sequence[str], crop: int, binning: int
) -> tuple[list[str], FeatureGraph]:
    """The layers without what lies within `crop` frame pixels of their borders, and the graph with their sizes."""
    axes = nodes.constant("crop/axes", np.array([2, 3]))
    cropped, sizes = [], []
    for tensor, pixels, (h, w) in zip(tensors, graph.strides, graph.sizes, strict=True):
        stride = pixels * binning
        if crop % stride:
            raise InputError(f"a border of {crop} px for {tensor} of stride {stride}; expected a multiple of it")
        edge = crop // stride
        ends = [nodes.constant(f"{tensor}/{name}", np.array([at, at])) for name, at in (("from", edge), ("to", -edge))]
        cropped.append(nodes.add("Slice", [tensor, *ends, axes], f"{tensor}/cropped"))
        sizes.append((h - 2 * edge, w - 2 * edge))
    return cropped, replace(graph, sizes=tuple(sizes))


def _map_size(
    graph: FeatureGraph, covered: tuple[int, int], stride: int | None, size: tuple[int, int] | None
) -> tuple[int, int]:
    finest = max(graph.sizes)
    if stride is not None and size is not None:
        raise InputError(
            f"received a map stride of {stride} and a map size of {size[0]} x {size[1]}; expected one of them"
        )
    if stride is not None:
        if stride < 1 or covered[0] % stride or covered[1] % stride:
            raise InputError(f"map stride {stride} does not divide frames of {covered[0]} x {covered[1]}")
        size = covered[0] // stride, covered[1] // stride
    size = finest if size is None else size
    if size[0] > finest[0] or size[1] > finest[1] or min(size) < 1:
        raise InputError(
            f"a map of {size[0]} x {size[1]}: expected at most the finest layer's {finest[0]} x {finest[1]}"
        )
    return size


def _check_projection(graph: FeatureGraph, projection: npt.NDArray[np.float32] | None) -> None:
    if projection is None:
        return
    if projection.dtype != np.float32 or projection.ndim != 2 or projection.shape[1] != graph.depth:
        raise InputError(
            f"a projection of {projection.dtype} {projection.shape}; expected float32 (d, {graph.depth}): "
            f"the layers {', '.join(graph.layers)} have {' + '.join(map(str, graph.channels))} channels"
        )
    if not len(projection) or not np.isfinite(projection).all():
        raise InputError("the projection is empty or holds NaN or infinity")


def _to_map(
    nodes: Nodes, graph: FeatureGraph, tensors: Sequence[str], size: tuple[int, int]
) -> dict[tuple[int, int], list[tuple[int, str]]]:
    """Layers (index, tensor) by resolution, finest first; those finer than the map averaged down to it."""
    resolutions: dict[tuple[int, int], list[tuple[int, str]]] = {size: []}
    for i, ((h, w), tensor) in enumerate(zip(graph.sizes, tensors, strict=True)):
        if h <= size[0] and w <= size[1]:
            resolutions.setdefault((h, w), []).append((i, tensor))
            continue
        if h % size[0] or w % size[1]:
            raise InputError(
                f"layer {graph.layers[i]} of {h} x {w} cannot be averaged down to a map of {size[0]} x {size[1]}; "
                "expected a whole factor"
            )
        factor = (h // size[0], w // size[1])
        pooled = nodes.add("AveragePool", [tensor], f"{tensor}/pooled", kernel_shape=factor, strides=factor)
        resolutions[size].append((i, pooled))
    return dict(sorted(resolutions.items(), reverse=True))


def _project(nodes: Nodes, tensors: Sequence[str], matrix: npt.NDArray[np.float32], output: str) -> None:
    """Writes `matrix concat(tensors)` at every position."""
    stacked = nodes.add("Concat", tensors, f"{output}_stacked", axis=1) if len(tensors) > 1 else tensors[0]
    weight = nodes.constant(f"{output}_projection", matrix[:, :, None, None])
    nodes.add("Conv", [stacked, weight], output, kernel_shape=(1, 1))


def _place(nodes: Nodes, tensors: Sequence[str], spans: Sequence[tuple[int, int]], depth: int, output: str) -> None:
    """Writes each tensor to its own span of `depth` channels, zeros elsewhere: the identity without its products."""
    placed = []
    for i, (tensor, (start, stop)) in enumerate(zip(tensors, spans, strict=True)):
        pads = nodes.constant(f"{output}_pads_{i}", np.array((0, start, 0, 0, 0, depth - stop, 0, 0), np.int64))
        name = output if len(tensors) == 1 else f"{output}_placed_{i}"
        placed.append(nodes.add("Pad", [tensor, pads], name))
    if len(placed) > 1:
        nodes.add("Sum", placed, output)
