"""The benchmarks on the stand-in driver: that they run, and compute what they say. Times mean nothing there."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from flawline.benchmarks.gpu import reading, series
from flawline.benchmarks.gpu.torch_engine import TorchEngine
from flawline.runtime.gpu.driver import find_driver
from tests.emulation.build import SOURCES, build
from tests.emulation.standin import StandIn
from tests.runtime.gpu.conftest import kernels_image, loaded_standin, standin, standin_library

__all__ = ["kernels_image", "loaded_standin", "standin", "standin_library"]


class HostEngine(TorchEngine):
    """torch on the CPU, on the stand-in's memory, which is the host's. Its turn comes in the order of the stream."""

    device = "cpu"

    def enqueue(self, stream: int) -> None:
        find_driver().call("cuLaunchHostFunc", ctypes.c_void_p(stream), self._call, None)

    def _prepare(self) -> None:
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: self._run())

    def _tensor(self, address: int, shape: Sequence[int], dtype: npt.DTypeLike) -> torch.Tensor:
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        held = np.frombuffer((ctypes.c_uint8 * size_bytes).from_address(address), dtype)
        return torch.from_numpy(held.reshape(shape))


@pytest.fixture
def gpu(request: pytest.FixtureRequest, standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, with the kernel that reads as well."""
    folder = Path(reading.__file__).parent
    cache = request.config.cache.mkdir("emulation")
    image = build(cache, ["read.cu"], folder, flags=(f"-I{SOURCES}",)).read_bytes()

    def load(name: str, *_: Any, **options: Any) -> bytes:
        assert (name, options["folder"]) == ("read", folder)
        return image

    monkeypatch.setattr(reading, "load_image", load)
    monkeypatch.setattr(series, "_LEAST_LAUNCHES", 1)
    return standin
