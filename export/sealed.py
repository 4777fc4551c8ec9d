"""The last step before a derived feature graph is a file: checked, free of notes, always the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flawline import __version__
from flawline.export.converting import converting
from flawline.export.onnx_file import strip
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    from onnx import ModelProto

    from flawline.runtime.precisions import Precision
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")


def sealed(model: ModelProto, precision: Precision) -> bytes:
    """The bytes of a model, which loses its notes and the shapes of inner tensors.

    Args:
        model: Changed in place.
        precision: That it was converted to.

    Raises:
        InputError: It is no valid graph, or larger than a file can be.
    """
    del model.metadata_props[:]
    del model.graph.value_info[:]
    strip(model.graph)
    model.producer_name, model.producer_version = "flawline", __version__
    with converting(precision, "the ONNX checker"):
        onnx.checker.check_model(model, full_check=True)
        serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
