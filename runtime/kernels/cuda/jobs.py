"""The arguments of the kernels: structs as the CUDA sources declare them. Pointers are addresses on the device."""

import numpy as np

MOST_MAPS = 8
"""Feature maps that a kernel takes."""

_POINTER = np.uint64

FACTORS = np.dtype(
    [
        ("elements", _POINTER),
        ("row_scales", _POINTER),
        ("packed", np.int32),
        ("rows", np.int32),
        ("dimension", np.int32),
    ],
    align=True,
)
"""The packed factors of all Gaussians (`whitening.cuh`)."""

WORK = np.dtype(
    [
        ("factors", FACTORS),
        ("means", _POINTER),
        ("scales", _POINTER),
        ("gaussians", _POINTER),
        ("vectors", _POINTER),
        ("distances", _POINTER),
        ("items", np.int32),
        ("components", np.int32),
        ("outputs", np.int32),
        ("frames", np.int32),
        ("woodbury", np.int32),
    ],
    align=True,
)
"""Which vectors are scored against which Gaussians, and where the distances go (`items.cuh`)."""

AXIS = np.dtype([("low", _POINTER), ("high", _POINTER), ("weight", _POINTER)], align=True)
"""The taps of an axis, as `flawline.runtime.kernels.interpolation` lists them (`maps.cuh`)."""

FEATURE_MAP = np.dtype(
    [
        ("data", _POINTER),
        ("rows", AXIS),
        ("columns", AXIS),
        ("channels", np.int32),
        ("height", np.int32),
        ("width", np.int32),
    ],
    align=True,
)
"""A feature map, float32 (frames, channels, height, width), and how it is upsampled (`maps.cuh`)."""

FEATURE_MAPS = np.dtype([("maps", FEATURE_MAP, (MOST_MAPS,)), ("count", np.int32), ("width", np.int32)], align=True)
"""Feature maps and the width of the anomaly map (`maps.cuh`)."""

VECTORS = np.dtype([("data", _POINTER), ("frame_stride", np.int64), ("output_stride", np.int64)], align=True)
"""Vectors, float32, with strides in elements; stride 0 where one vector serves all outputs (`distances.cu`)."""

VECTOR_DISTANCES = np.dtype([("work", WORK), ("source", VECTORS)], align=True)
"""Job of the kernels `vector_distances_*`."""

MAP_DISTANCES = np.dtype([("work", WORK), ("source", FEATURE_MAPS), ("held", np.int32)], align=True)
"""Job of the kernels `map_distances_*`."""

PROJECTION = np.dtype(
    [
        ("maps", FEATURE_MAPS),
        ("matrix", _POINTER),
        ("channels", np.int32),
        ("half", np.int32),
        ("thread_columns", np.int32),
    ],
    align=True,
)
"""Feature maps of any depth, concatenated, and the matrix that projects them (`projected.cu`)."""

PROJECTED_DISTANCES = np.dtype([("work", WORK), ("source", PROJECTION)], align=True)
"""Job of the kernels `projected_distances_*`."""
