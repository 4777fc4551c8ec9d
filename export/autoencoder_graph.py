"""An autoencoder as one ONNX file for the device, from the uint8 frame to what its maps are made of.

The network sees pixels from 0 to 1, as it was trained; the frame's bytes come in and grey levels go out, so that the
reconstruction can be compared with the frame as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from flawline.export.autoencoder import OUTPUT
from flawline.export.feature_graph import FeatureGraph
from flawline.export.frame_graph import INPUT, write_frame_graph
from flawline.export.nodes import Nodes
from flawline.export.saliency import add_saliency, over_channels
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

Output = Literal["reconstruction", "error", "saliency"]

_LEVELS = np.float32(255)


def compose_autoencoder(
    network: FeatureGraph, outputs: Sequence[Output] = ("reconstruction",), *, layout: Literal["nhwc", "nchw"] = "nhwc"
) -> bytes:
    """Writes the graph.

    Its input is `frame`, uint8 (N, height, width, channels), or (N, channels, height, width) in the layout nchw. Its
    outputs are

    - `reconstruction`, float32 (N, channels, height, width) in grey levels, 0 to 255;
    - `error`, float32 (N, 1, height, width) in squared grey levels: the squared error, the mean over the channels for
      colour;
    - `saliency`, float32 (N, 1, height, width), of pixels from 0 to 1: see `add_saliency`.

    Args:
        network: An autoencoder of pixels from 0 to 1, cut at its reconstruction alone.
        outputs: Those that are wanted. The backward pass is there for the saliency alone.
        layout: Order of the frame's axes.

    Returns:
        The ONNX file, the same bytes for the same arguments.

    Raises:
        InputError: The network does not give an image of the size of its input, or the saliency is wanted and a node has
            no gradient.
    """
    shape = (network.image_channels, network.height, network.width)
    if [(c, h, w) for c, (h, w) in zip(network.channels, network.sizes, strict=True)] != [shape]:
        received = ", ".join(f"{c} x {h} x {w}" for c, (h, w) in zip(network.channels, network.sizes, strict=True))
        raise InputError(f"a network that gives {received}; expected a reconstruction of {' x '.join(map(str, shape))}")
    forward = onnx.compose.add_prefix(network.model, "network/")
    image, reconstruction = f"network/{network.input}", f"network/{network.layers[0]}"
    opsets = list(forward.opset_import)
    before, behind = Nodes(), Nodes()
    # Cast first: TensorRT takes bytes, but can do nothing else with them.
    pixels = before.add("Cast", [INPUT], "frame_float", to=onnx.TensorProto.FLOAT)
    if layout == "nhwc":
        pixels = before.add("Transpose", [pixels], "frame_nchw", perm=(0, 3, 1, 2))
    levels = before.constant("levels", _LEVELS)
    before.add("Div", [pixels, levels], image)
    rebuilt = behind.add("Mul", [reconstruction, levels], OUTPUT)
    if "error" in outputs:
        difference = behind.add("Sub", [rebuilt, pixels], "maps/difference")
        squared = behind.add("Mul", [difference, difference], "maps/squared")
        over_channels(behind, "ReduceMean", squared, "error", opsets)
    if "saliency" in outputs:
        add_saliency(behind, forward, image, reconstruction, "saliency")
    return write_frame_graph(
        "autoencoder",
        shape,
        layout,
        {name: (shape[0] if name == OUTPUT else 1, *shape[1:]) for name in outputs},
        [*before.nodes, *forward.graph.node, *behind.nodes],
        [*before.constants, *forward.graph.initializer, *behind.constants],
        opsets,
    )
