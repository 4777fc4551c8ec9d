"""Arithmetics of the network, and the engines that compute in each of them.

Statistics belong to an arithmetic: engines round the same 8-bit file differently, by a few per cent of a feature, because they
fuse its nodes differently. So there is one precision per engine where that matters.
"""

from typing import Literal, get_args

Quantised = Literal["int8", "int8-openvino", "int8-tensorrt"]
Precision = Literal["fp32", "fp16", "bf16", Quantised]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

ENGINES: dict[Precision, tuple[str, ...]] = {
    "fp32": ("onnxruntime", "openvino"),
    "fp16": ("onnxruntime",),
    "bf16": ("openvino",),
    "int8": ("onnxruntime",),
    "int8-openvino": ("openvino",),
    "int8-tensorrt": ("onnxruntime",),
}
"""Engines whose scores may be expected to agree. Through the first of them the statistics are collected."""

GPU_ENGINES: dict[Precision, tuple[str, ...]] = {
    "fp32": ("tensorrt",),
    "fp16": ("tensorrt",),
    "int8-tensorrt": ("tensorrt",),
}
"""Engines on a GPU whose scores may be expected to agree with those."""
