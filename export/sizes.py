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


def features_of_one_size(features: bytes, sizes: dict[str, tuple[int, int]], layout: str) -> bytes:
    """The inverse of `features_of_any_size`.

    Args:
        features: Bytes of the ONNX file.
        sizes: Height and width of its input and of each output, by name.
        layout: Order of the axes of its input: nhwc or nchw.
    """
    model = onnx.load_from_string(features)
    for name, axes in _spatial(model, layout).items():
        value = next(value for value in (*model.graph.input, *model.graph.output) if value.name == name)
        for axis, side in zip(axes, sizes[name], strict=True):
            value.type.tensor_type.shape.dim[axis].dim_value = side
    fixed: bytes = model.SerializeToString(deterministic=True)
    return fixed


def features_of_any_size(features: bytes, layout: str) -> bytes:
    """The feature graph of a bundle with height and width left open.

    Args:
        features: Bytes of the ONNX file.
        layout: Order of the axes of its input: nhwc or nchw.
    """
    model = onnx.load_from_string(features)
    opened: bytes = open_size(model, _spatial(model, layout)).SerializeToString(deterministic=True)
    return opened


def _spatial(model: ModelProto, layout: str) -> dict[str, tuple[int, int]]:
    """The axes of height and width, for the input and each output of a feature graph."""
    spatial = {value.name: (2, 3) for value in model.graph.output}
    return spatial | {value.name: (1, 2) if layout == "nhwc" else (2, 3) for value in model.graph.input}
