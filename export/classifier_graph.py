"""A classifier as one ONNX file for the device: from the uint8 frame to deep features, logits and the second head.

Features and logits are maps of one position, (N, channels, 1, 1), as every network of a bundle gives maps. The projection
of the features and the second head are convolutions of one position, so that what quantises and runs convolutions knows
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.export.feature_graph import FeatureGraph, cut
from flawline.export.frame_graph import INPUT, write_frame_graph
from flawline.export.nodes import Nodes
from flawline.export.normalisation import normalise
from flawline.export.onnx_file import read_network
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx
    from onnx import GraphProto, ModelProto

    from flawline.detectors.classifier import Classifier
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

FEATURES = "features"
LOGITS = "logits"
HEAD = "head"
NETWORK = "network/"
"""What the names of all that the network computes begin with."""
_SAME_VALUES = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast")


class Layer(NamedTuple):
    """A fully connected layer.

    Attributes:
        weight: float32 (outputs, inputs).
        bias: float32 (outputs,).
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def export_classifier(classifier: Classifier) -> FeatureGraph:
    """Exports a classifier of torch for any batch, cut at its deep features and its logits.

    Args:
        classifier: Trained; put into inference form.

    Returns:
        The graph: float32 (N, channels of the mean, height, width), normalised, to `features` and `logits`, maps of one position. The
        same for the same weights.
    """
    from flawline.export.backbone import trace
    from flawline.export.classifier_module import AtOnePosition

    shape = classifier.image_shape
    # Of a network in colour that learnt from grey images, the graph gives its one channel to all three.
    traced = shape._replace(channels=len(classifier.mean))
    model = trace(AtOnePosition(classifier).cpu(), traced, [FEATURES, LOGITS], title=classifier.title)
    return cut(model, [FEATURES, LOGITS], shape.height, shape.width, origin=classifier.title)


def load_classifier(path: Path, layer: str, height: int, width: int) -> FeatureGraph:
    """Reads a classifier from an ONNX file and cuts it at its deep features and its logits.

    Args:
        path: A self-contained ONNX file, whose one output is the logits, or their softmax, which is left out.
        layer: Name of the tensor with the deep features, (N, d) or (N, d, 1, 1).
        height: Of the input, in pixels.
        width: Of the input, in pixels.

    Raises:
        InputError: The file is not such a network, or computes no such tensor; or it is a map of many positions, or the logits.
    """
    model = read_network(path)
    if len(model.graph.output) != 1:
        names = ", ".join(value.name for value in model.graph.output) or "none"
        raise InputError(f"network {path.name} has the outputs {names}; expected one, the logits of the classes")
    logits, same = _logits(model.graph)
    if layer in same:
        raise InputError(
            f"network {path.name}: tensor {layer} is the logits or their softmax; expected the deep features, which the last "
            "layer makes logits of"
        )
    nodes = Nodes()
    shape = nodes.constant("flawline/one_position", np.array((0, -1, 1, 1), np.int64))
    for tensor, name in ((layer, FEATURES), (logits, LOGITS)):
        nodes.add("Reshape", [tensor, shape], f"flawline/{name}")
    extended: ModelProto = onnx.ModelProto()
    extended.CopyFrom(model)
    known = {name for node in model.graph.node for name in node.output}
    if layer not in known:
        # Cutting says which there are.
        return cut(extended, [layer], height, width, origin=path.name)
    extended.graph.node.extend(nodes.nodes)
    extended.graph.initializer.extend(nodes.constants)
    graph = cut(extended, [f"flawline/{name}" for name in (FEATURES, LOGITS)], height, width, origin=path.name)
    _require_vector(graph.model, layer, path.name)
    return graph


def _require_vector(model: ModelProto, layer: str, origin: str) -> None:
    """Refuses a map of many positions, whose every value would become a feature of its own."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in inferred.graph.value_info:
        if value.name == layer:
            shape = [dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim]
            if any(length != 1 for length in shape[2:]):
                raise InputError(
                    f"network {origin}: tensor {layer} has the shape ({', '.join(map(str, shape))}), many positions; expected "
                    "(N, d) or (N, d, 1, 1), such as the tensor behind the pooling"
                )


def compose_classifier(
    network: FeatureGraph,
    *,
    channels: int,
    layout: Literal["nhwc", "nchw"] = "nhwc",
    mean: Sequence[float],
    std: Sequence[float],
    projection: npt.NDArray[np.float32] | None = None,
    head: Sequence[Layer] = (),
) -> bytes:
    """Writes the graph.

    Its input is `frame`, uint8 (N, height, width, channels), or (N, channels, height, width) in the layout nchw. Its
    outputs are

    - `features`, float32 (N, d, 1, 1): the deep features, projected;
    - `logits`, float32 (N, K, 1, 1);
    - `head`, float32 (N, 1, 1, 1): the log-odds that the image is of none of the classes, if there is a second head. Its
      probability would lose its digits where it is near 0, as for most images it is: engines round the sigmoid.

    Args:
        network: Cut at its deep features and its logits.
        channels: Of the frame: 3 (RGB), or 1 (grey, given to every channel of the network).
        layout: Order of the frame's axes.
        mean: Subtracted from the frame, one number per channel of the network, in units of 0 to 255.
        std: What the frame is divided by after that, likewise.
        projection: float32 (d, D) of the D deep features; None to leave them as they are.
        head: Of the D deep features: layers with rectifiers between them. The last gives the log-odds that the image is
            normal.

    Returns:
        The ONNX file, the same bytes for the same arguments.

    Raises:
        InputError: Shapes that do not go together.
    """
    if network.sizes != ((1, 1), (1, 1)):
        raise InputError(f"deep features and logits of sizes {network.sizes}; expected one position each")
    depth, classes = network.channels
    if projection is not None and projection.shape[1] != depth:
        raise InputError(f"a projection {projection.shape} of {depth} deep features; expected (d, {depth})")
    forward = onnx.compose.add_prefix(network.model, NETWORK)
    image = f"{NETWORK}{network.input}"
    features, logits = (f"{NETWORK}{name}" for name in network.layers)
    before, behind = Nodes(), Nodes()
    normalise(
        before,
        forward,
        INPUT,
        image,
        channels=channels,
        layout=layout,
        mean=mean,
        std=std,
        image_channels=network.image_channels,
    )
    if projection is None:
        behind.add("Identity", [features], FEATURES)
    else:
        _connect(behind, features, projection, None, FEATURES)
    behind.add("Identity", [logits], LOGITS)
    outputs = {FEATURES: depth if projection is None else len(projection), LOGITS: classes}
    if head:
        _add_head(behind, features, head)
        outputs[HEAD] = 1
    return write_frame_graph(
        "classifier",
        (channels, network.height, network.width),
        layout,
        {name: (count, 1, 1) for name, count in outputs.items()},
        [*before.nodes, *forward.graph.node, *behind.nodes],
        [*before.constants, *forward.graph.initializer, *behind.constants],
        forward.opset_import,
    )


def _add_head(nodes: Nodes, features: str, head: Sequence[Layer]) -> None:
    tensor = features
    for index, layer in enumerate(head):
        last = index + 1 == len(head)
        sign = np.float32(-1 if last else 1)
        name = HEAD if last else f"head/{index}"
        tensor = _connect(nodes, tensor, sign * layer.weight, sign * layer.bias, name)
        if not last:
            tensor = nodes.add("Relu", [tensor], f"head/{index}/rectified")


def _connect(
    nodes: Nodes, tensor: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None, output: str
) -> str:
    """Writes a fully connected layer as the convolution of a single position."""
    inputs = [tensor, nodes.constant(f"{output}/weight", weight[:, :, None, None])]
    if bias is not None:
        inputs.append(nodes.constant(f"{output}/bias", bias))
    return nodes.add("Conv", inputs, output, kernel_shape=(1, 1))


def _logits(graph: GraphProto) -> tuple[str, set[str]]:
    """The tensor with the logits, and all that hold the same: the only output is they, or their softmax, in whatever form."""
    made_by = {name: node for node in graph.node for name in node.output}
    output: str = graph.output[0].name
    logits, tensor, same, in_softmax = output, output, {output}, False
    while (node := made_by.get(tensor)) is not None:
        softmax = node.op_type == "Softmax" and not in_softmax
        if not (softmax or node.op_type in _SAME_VALUES) or not node.input or node.input[0] in same:
            break
        tensor = str(node.input[0])
        same.add(tensor)
        if softmax:
            logits, in_softmax = tensor, True
    return logits, same
