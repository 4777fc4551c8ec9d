"""The calls of the Mahalanobis kernels, made on a device and waited for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels import Gaussians, Upsampling
from flawline.runtime.kernels.cuda import calls
from tests.emulation.build import Emulator
from tests.runtime.kernels.cases import poisoned

Floats = npt.NDArray[np.float32]


def vector_distances(
    device: Emulator, gaussians: Gaussians, x: Floats, *, planned: int | None = None, order: int = 0
) -> Floats:
    """Distances of vectors, float32 (B, P, d) or (B, 1, d), by a plan for at least B frames: (planned, P)."""
    call = calls.vector_distances(gaussians, planned or len(x), device.put, shared=x.shape[1] == 1)
    call.job["source"]["data"] = device.put(x)
    return _run(device, call, gaussians, len(x), planned, order)


def map_distances(
    device: Emulator,
    gaussians: Gaussians,
    maps: Sequence[Floats],
    size: tuple[int, int],
    *,
    upsampling: Upsampling = "bilinear",
    planned: int | None = None,
    order: int = 0,
) -> Floats:
    """Distances of the sum of feature maps, float32 (B, d, h, w) each: (planned, P)."""
    shapes = [each.shape[2:] for each in maps]
    call = calls.map_distances(gaussians, shapes, size, planned or len(maps[0]), device.put, upsampling=upsampling)
    call.job["source"]["maps"]["data"][: len(maps)] = [device.put(each) for each in maps]
    return _run(device, call, gaussians, len(maps[0]), planned, order)


def projected_distances(
    device: Emulator,
    gaussians: Gaussians,
    projection: npt.NDArray[np.floating[Any]],
    maps: Sequence[Floats],
    size: tuple[int, int],
    *,
    upsampling: Upsampling = "bilinear",
    planned: int | None = None,
    order: int = 0,
) -> Floats:
    """Distances of projected feature maps, float32 (B, channels, h, w) each: (planned, P)."""
    shapes = [each.shape[1:] for each in maps]
    frames = planned or len(maps[0])
    call = calls.projected_distances(gaussians, projection, shapes, size, frames, device.put, upsampling=upsampling)
    call.job["source"]["maps"]["maps"]["data"][: len(maps)] = [device.put(each) for each in maps]
    return _run(device, call, gaussians, len(maps[0]), planned, order)


def _run(
    device: Emulator, call: calls.Call, gaussians: Gaussians, frames: int, planned: int | None, order: int
) -> Floats:
    distances = device.put(poisoned(planned or frames, gaussians.outputs))
    call.job["work"]["distances"] = distances
    call.job["work"]["frames"] = frames
    device.launch(*call, order=order)
    return device.get(distances)
