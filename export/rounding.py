"""Weights of convolutions rounded to 8 bits so that their errors cancel in what the layer computes.

Rounded to nearest, the errors of a filter's taps add up on smooth images: an edge filter of small taps that should give
zero on a plain surface gives a tenth of the brightness. Instead the taps are rounded one by one, and each error is passed
to the taps not rounded yet in the proportion that least changes the layer's output on real inputs: Frantar et al., GPTQ
(2022), equations 2 and 3. Nothing changes at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx
    from onnx import NodeProto
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

Floats = npt.NDArray[np.float32]

_LIMIT = 127
# Of the mean diagonal, added to it: what little was seen of a tap does not let others grow without bound.
_DAMPING = 1e-3
# Taps per block: errors reach those beyond it in one product.
_BLOCK = 64
# Of the layer's largest scale: a filter of zeros needs one too.
_SMALLEST_SCALE = 1e-6


def patches(node: NodeProto, weight_shape: tuple[int, ...], values: Floats, count: int, shift: float) -> Floats | None:
    """What a convolution multiplies its filters with, at some positions of one frame.

    Args:
        node: The convolution.
        weight_shape: (filters, channels of a group, height, width).
        values: The node's input, float32 (1, channels, height, width).
        count: Positions to take, spread evenly.
        shift: By which part of their distance they are moved on, 0 to 1, so that every frame shows others.

    Returns:
        float32 (groups, positions, taps), taps = channels of a group x height x width; None if the convolution is not
        of two dimensions with explicit padding.
    """
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if len(weight_shape) != 4 or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    groups, kernel = given.get("group", 1), weight_shape[2:]
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
    spans = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    channels, height, width = windows.shape[:3]
    count = min(count, height * width)
    chosen = ((np.arange(count) + shift) * (height * width / count)).astype(np.int64)
    taken = windows[:, chosen // width, chosen % width]
    grouped = taken.reshape(groups, channels // groups, count, -1).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(grouped).reshape(groups, count, -1)


def round_weight(weight: Floats, gram: Floats | None) -> tuple[npt.NDArray[np.int8], Floats]:
    """Rounds a convolution's weight, one scale per filter.

    Args:
        weight: float32 (filters, channels of a group, ...).
        gram: float32 (groups, taps, taps), the sum of products of taps over many patches; None rounds to nearest.

    Returns:
        int8 of the weight's shape, within +-127, and float32 (filters,): their product is the weight.
    """
    filters = len(weight)
    flat = weight.reshape(filters, -1)
    scale = np.abs(flat).max(axis=1) / np.float32(_LIMIT)
    scale = np.maximum(scale, scale.max() * np.float32(_SMALLEST_SCALE) or np.float32(1))
    if gram is None or not gram.any():
        rounded = np.clip(np.round(flat / scale[:, None]), -_LIMIT, _LIMIT)
    else:
        rounded = _cancel(flat.reshape(len(gram), filters // len(gram), -1), gram, scale.reshape(len(gram), -1))
    return rounded.reshape(weight.shape).astype(np.int8), scale.astype(np.float32)


def _cancel(weight: Floats, gram: Floats, scale: Floats) -> npt.NDArray[np.float64]:
    """Rounds weights (groups, filters, taps); see the head of this file."""
    taps = weight.shape[2]
    left = weight.astype(np.float64)
    damped = gram.astype(np.float64)
    diagonal = np.arange(taps)
    mean = damped[:, diagonal, diagonal].mean(axis=1, keepdims=True)
    # A group that saw nothing but zeros is rounded to nearest.
    damped[:, diagonal, diagonal] += np.where(mean > 0, _DAMPING * mean, 1)
    # Row i, divided by its diagonal, tells how the taps after i make up best for an error of tap i.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    rounded = np.empty_like(left)
    for start in range(0, taps, _BLOCK):
        stop = min(start + _BLOCK, taps)
        errors = np.empty((*left.shape[:2], stop - start))
        for i in range(start, stop):
            rounded[:, :, i] = np.clip(np.round(left[:, :, i] / scale), -_LIMIT, _LIMIT)
            error = (left[:, :, i] - rounded[:, :, i] * scale) / factor[:, i, i, None]
            left[:, :, i + 1 : stop] -= error[:, :, None] * factor[:, i, None, i + 1 : stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return rounded
