"""The ONNX file that a bundle ships: from the uint8 frame to float32 maps, with nothing of the machine it was made on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from flawline import __version__
from flawline.export.feature_graph import BATCH
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx
    from onnx import NodeProto, OperatorSetIdProto, TensorProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

INPUT = "frame"


def write_frame_graph(
    title: str,
    frame: tuple[int, int, int],
    layout: Literal["nhwc", "nchw"],
    outputs: Mapping[str, tuple[int, int, int]],
    nodes: Iterable[NodeProto],
    constants: Iterable[TensorProto],
    opsets: Iterable[OperatorSetIdProto],
) -> bytes:
    """Writes a graph for any batch.

    Args:
        title: Name of the graph.
        frame: Channels, height and width of the input `frame`, uint8.
        layout: Order of its axes: (N, height, width, channels), or (N, channels, height, width).
        outputs: Channels, height and width of each output by name, float32 (N, channels, height, width).
        nodes: Each reads what those before it gave, or constants, or the frame.
        constants: By their names.
        opsets: Of the nodes.

    Returns:
        The file, the same bytes for the same arguments.
    """
    channels, height, width = frame
    shape = (BATCH, height, width, channels) if layout == "nhwc" else (BATCH, channels, height, width)
    versions = list(opsets)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            list(nodes),
            title,
            [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, shape)],
            [
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (BATCH, *size))
                for name, size in outputs.items()
            ],
            initializer=list(constants),
        ),
        opset_imports=versions,
        ir_version=onnx.helper.find_min_ir_version_for(versions, ignore_unknown=True),
        producer_name="flawline",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
