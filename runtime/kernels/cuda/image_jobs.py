"""The arguments of the kernels on images and maps: structs as the CUDA sources declare them, pointers as addresses."""

import numpy as np

from flawline.runtime.kernels.cuda.jobs import AXIS

_POINTER = np.uint64

FILTER = np.dtype([("taps", _POINTER), ("radius", np.int32)], align=True)
"""A separable filter (`separable.cuh`)."""

SMOOTH = np.dtype(
    [
        ("maps", _POINTER),
        ("out", _POINTER),
        ("scores", _POINTER),
        ("filter", FILTER),
        ("rows", _POINTER),
        ("columns", _POINTER),
        ("height", np.int32),
        ("width", np.int32),
    ],
    align=True,
)
"""Job of the kernels `smooth_*`; the scores are zero before."""

STRIDES = np.dtype(
    [("frame", np.int64), ("channel", np.int64), ("row", np.int32), ("pixel", np.int32)],
    align=True,
)
"""How far apart the values of an array lie, in elements (`pse.cu`)."""

PART = np.dtype([("maximum", np.uint32), ("sum", np.float32)], align=True)
"""What a tile contributes to the error of its frame (`pse.cu`)."""

PROXIMAL_ERROR = np.dtype(
    [
        ("image", _POINTER),
        ("reconstruction", _POINTER),
        ("image_strides", STRIDES),
        ("reconstruction_strides", STRIDES),
        ("filter", FILTER),
        ("map", _POINTER),
        ("parts", _POINTER),
        ("finished", _POINTER),
        ("maxima", _POINTER),
        ("means", _POINTER),
        ("height", np.int32),
        ("width", np.int32),
        ("channels", np.int32),
    ],
    align=True,
)
"""Job of the kernels `pse_*`; `finished` is zero before the first launch, and after each."""

SALIENCY = np.dtype(
    [("saliency", _POINTER), ("map", _POINTER), ("scores", _POINTER), ("positions", np.int32), ("squared", np.int32)],
    align=True,
)
"""Job of the kernel `saliency`; the scores are zero before."""

FRAME_MAP = np.dtype(
    [
        ("maps", _POINTER),
        ("rows", AXIS),
        ("columns", AXIS),
        ("out", _POINTER),
        ("mask", _POINTER),
        ("threshold", np.float32),
        ("height", np.int32),
        ("width", np.int32),
        ("frame_height", np.int32),
        ("frame_width", np.int32),
    ],
    align=True,
)
"""Job of the kernel `frame_map`; either of `out` and `mask` may be 0."""

PIXELS = np.dtype(
    [
        ("source", _POINTER),
        ("target", _POINTER),
        ("frame_stride", np.int64),
        ("row_stride", np.int64),
        ("source_width", np.int32),
        ("height", np.int32),
        ("width", np.int32),
        ("channels", np.int32),
        ("planar", np.int32),
    ],
    align=True,
)
"""Frames and the network's input; strides in bytes (`preprocess.cu`)."""

PAIRS = np.dtype(
    [("low", _POINTER), ("high", _POINTER), ("low_weight", _POINTER), ("high_weight", _POINTER)], align=True
)
"""An axis, as `flawline.runtime.kernels.cuda.resize_tables.Pairs` lists it (`preprocess.cu`)."""

RUNS = np.dtype([("first", _POINTER), ("starts", _POINTER), ("weights", _POINTER)], align=True)
"""An axis, as `flawline.runtime.kernels.cuda.resize_tables.Runs` lists it (`preprocess.cu`)."""

COPY = np.dtype([("pixels", PIXELS)], align=True)
"""Job of the kernel `preprocess_copy`."""

INTERPOLATE = np.dtype([("pixels", PIXELS), ("rows", PAIRS), ("columns", PAIRS)], align=True)
"""Job of the kernel `preprocess_interpolate`."""

AVERAGE = np.dtype(
    [
        ("pixels", PIXELS),
        ("rows", RUNS),
        ("columns", RUNS),
        ("scale", np.float32),
        ("half_up", np.int32),
        ("band", np.int32),
        ("pitch", np.int32),
    ],
    align=True,
)
"""Job of the kernel `preprocess_average`."""
