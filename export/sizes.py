"""Networks for one size of image, and the same for any size: only what a graph declares differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    from onnx import ModelProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")


def open_size(model: ModelProto, spatial: dict[str, tuple[int, int]]) -> ModelProto:
    """A copy that leaves height and width open.

    Args:
        model: A network without operators that depend on its size; see `receptive_fields`.
        spatial: The axes of height and width, for each input and output.
    """
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.value_info[:]
    for value in (*opened.graph.input, *opened.graph.output):
        for axis, side in zip(spatial.get(value.name, ()), "hw", strict=False):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{side}"
    return opened


def features_of_any_size(features: bytes, layout: str) -> bytes:
    """The feature graph of a bundle with height and width left open.

    Args:
        features: Bytes of the ONNX file.
        layout: Order of the axes of its input: nhwc or nchw.
    """
    model = onnx.load_from_string(features)
    spatial = {value.name: (2, 3) for value in model.graph.output}
    spatial |= {value.name: (1, 2) if layout == "nhwc" else (2, 3) for value in model.graph.input}
    opened: bytes = open_size(model, spatial).SerializeToString(deterministic=True)
    return opened
