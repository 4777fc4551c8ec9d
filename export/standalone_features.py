"""The feature graph as the front of a standalone file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flawline.export.onnx_file import at_supported_opset, strip
from flawline.runtime.errors import BundleError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    from google.protobuf import message as protobuf  # type: ignore[import-untyped]
    from onnx import GraphProto, ModelProto

    from flawline.runtime.bundle import Bundle
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    protobuf = LazyModule("google.protobuf.message", "pip install 'flawline[fit]'")

PREFIX = "features/"
"""Begins the name of every tensor but the frame."""


def embedded_features(bundle: Bundle) -> ModelProto:
    """The feature graph of a bundle, as the front of a larger graph.

    Args:
        bundle: An open bundle, in the precision that is wanted.

    Returns:
        The graph without notes, of an opset of 17 to 20. Its input keeps its name; `PREFIX` begins those of all other
        tensors, so that they meet no others.

    Raises:
        BundleError: The graph is no ONNX file, or does not have the inputs and outputs of the manifest.
        InputError: It is of an opset that cannot be converted.
    """
    manifest = bundle.padim
    try:
        model = onnx.load_from_string(bundle.features)
    except protobuf.DecodeError as error:
        raise BundleError(f"{bundle.path}: the feature graph is no ONNX file") from error
    model = at_supported_opset(model, manifest.network.name)
    takes, gives = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    expected = [output.name for output in manifest.network.outputs]
    if takes != [manifest.network.input] or gives != expected:
        raise BundleError(
            f"{bundle.path}: the feature graph takes {takes} and gives {gives}; the manifest says "
            f"{[manifest.network.input]} and {expected}"
        )
    strip(model.graph)
    model.ClearField("doc_string")
    del model.graph.value_info[:]
    model = onnx.compose.add_prefix(model, PREFIX, rename_inputs=False)
    _cast_first(model.graph)
    return model


def _cast_first(graph: GraphProto) -> None:
    """Moves a transposition of the frame behind its cast: TensorRT takes bytes, but can do nothing else with them."""
    (frame,) = (value.name for value in graph.input)
    readers = [node for node in graph.node if frame in node.input]
    if len(readers) != 1 or readers[0].op_type != "Transpose":
        return
    (transpose,) = readers
    casts = [node for node in graph.node if transpose.output[0] in node.input]
    if len(casts) != 1 or casts[0].op_type != "Cast":
        return
    (cast,) = casts
    pixels = f"{PREFIX}pixels"
    before, behind = onnx.NodeProto(), onnx.NodeProto()
    before.CopyFrom(cast)
    behind.CopyFrom(transpose)
    before.input[0], before.output[0] = frame, pixels
    behind.input[0], behind.output[0] = pixels, cast.output[0]
    transpose.CopyFrom(before)
    cast.CopyFrom(behind)
