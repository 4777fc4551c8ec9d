"""Feature graphs in 16-bit floats, for GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flawline.export.converting import converting
from flawline.export.onnx_file import all_nodes, title
from flawline.export.sealed import sealed
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    from onnx import NodeProto
    from onnxruntime.quantization import onnx_model
    from onnxruntime.transformers import float16

    from flawline.export.calibrated import Calibrated
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    onnx_model = LazyModule("onnxruntime.quantization.onnx_model", "pip install 'flawline[ort]'")
    float16 = LazyModule("onnxruntime.transformers.float16", "pip install 'flawline[ort]'")

_LARGEST = float(np.finfo(np.float16).max)


def to_fp16(features: bytes, calibrated: Calibrated | None = None) -> bytes:
    """Converts a feature graph: weights and arithmetic in float16, input and outputs as before.

    Args:
        features: Bytes of the ONNX file: float32, with the uint8 input `frame`.
        calibrated: What the graph computed on good frames, which proves that float16 holds its tensors; None checks
            weights alone.

    Returns:
        The ONNX file, the same bytes for the same arguments. ONNX Runtime runs it on a CPU too, slowly.

    Raises:
        InputError: A weight or a tensor is beyond 65504, or an operator has no float16 form, or the converter fails.
    """
    model = onnx.load_from_string(features)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    for node in all_nodes(model.graph.node):
        if not _has_half_form(node, opset):
            raise InputError(f"layer {title(node)} has no float16 form; choose another precision")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            _require_finite(f"weight {tensor.name}", float(np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0)))
    if calibrated is not None:
        for name, histogram in calibrated.histograms.items():
            _require_finite(f"tensor {name}", histogram.peak)
    # Operators that the converter holds back for old engines are none that a feature graph has.
    with converting("fp16", "the converter of ONNX Runtime"):
        converted = onnx_model.ONNXModel(float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=[]))
        converted.topological_sort()
    return sealed(converted.model, "fp16")


def _require_finite(what: str, peak: float) -> None:
    if peak > _LARGEST:
        raise InputError(
            f"{what} reaches {peak:.4g}; float16 ends at {_LARGEST:.0f}: choose another precision, or scale the network"
        )


def _has_half_form(node: NodeProto, opset: int) -> bool:
    """Whether float16 may stand wherever the operator's definition lets its types vary and allows float32."""
    if node.domain not in ("", "ai.onnx"):
        return False
    constraints = onnx.defs.get_schema(node.op_type, opset, "").type_constraints
    return all(
        "tensor(float16)" in constraint.allowed_type_strs
        for constraint in constraints
        if "tensor(float)" in constraint.allowed_type_strs
    )
