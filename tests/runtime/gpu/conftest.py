"""The runtime on the stand-in driver, with a network that the CPU computes."""

import ctypes
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime import bundle as bundles
from flawline.runtime.backends import open_backend
from flawline.runtime.gpu.driver import find_driver
from flawline.runtime.gpu.network import cut_features, cut_manifest
from flawline.runtime.gpu.pipeline import EngineOpener
from tests.emulation.build import build
from tests.emulation.standin import StandIn, build_driver


class EmulatedEngine:
    """ONNX Runtime on the CPU in place of an engine on the GPU. What it is given to do waits in the stream, as if it were one.

    Attributes:
        problem: Raised by the next `enqueue`.
    """

    name = "emulated"
    capturable = True

    def __init__(
        self, bundle: bundles.Bundle, batch: int, input_address: int, output_addresses: tuple[int, ...]
    ) -> None:
        manifest = cut_manifest(bundle.manifest)
        frame = manifest.input
        size = (frame.height, frame.width)
        planar = frame.layout == "nchw"
        self._backend = open_backend(
            "onnxruntime",
            cut_features(bundle),
            (batch, frame.channels, *size) if planar else (batch, *size, frame.channels),
            [
                (batch, channels, output.height, output.width)
                for channels, output in zip(manifest.output_channels, manifest.network.outputs, strict=True)
            ],
        )
        self.input, self.outputs = input_address, output_addresses
        self.problem: Exception | None = None
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._run)

    def enqueue(self, stream: int) -> None:
        if self.problem is not None:
            raise self.problem
        find_driver().call("cuLaunchHostFunc", ctypes.c_void_p(stream), self._call, None)

    def close(self) -> None:
        self._backend.close()

    def _run(self, _: object) -> None:
        frames, maps = self._backend.input, self._backend.outputs
        ctypes.memmove(frames.ctypes.data, self.input, frames.nbytes)
        self._backend.infer()
        for address, feature_map in zip(self.outputs, maps, strict=True):
            ctypes.memmove(address, feature_map.ctypes.data, feature_map.nbytes)


def emulated(bundle: bundles.Bundle, batch: int = 1) -> EngineOpener:
    """What opens an emulated engine of a bundle."""
    return lambda inputs, outputs: EmulatedEngine(bundle, batch, inputs, outputs)


def missing() -> str | None:
    """Why the stand-in driver cannot be had here."""
    if shutil.which("g++") is None or platform.machine() != "x86_64":
        return "the stand-in driver and the kernels on it are built by g++ for an x86-64 CPU"
    if importlib.util.find_spec("pycuda") is None:
        return "PyCUDA is not installed; `make test` builds it"
    return None


@pytest.fixture(scope="session")
def standin_library(request: pytest.FixtureRequest) -> Path:
    """The stand-in driver, compiled."""
    reason = missing()
    if reason is not None:
        # Where everything is set up for the tests, nothing may be left out in silence.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return build_driver(request.config.cache.mkdir("emulation"))


@pytest.fixture(scope="session")
def loaded_standin(standin_library: Path) -> StandIn:
    return StandIn(standin_library)


@pytest.fixture(scope="session")
def kernels_image(request: pytest.FixtureRequest) -> bytes:
    """All kernels, compiled for the CPU."""
    return build(request.config.cache.mkdir("emulation"), ["kernels.cu"]).read_bytes()


@pytest.fixture
def standin(loaded_standin: StandIn, kernels_image: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in driver. Afterwards nothing may be left on the GPU, unless that was lost, nor have been done wrongly."""
    monkeypatch.setattr("flawline.runtime.gpu.module.load_image", lambda *_, **__: kernels_image)
    # Each test is a process of its own to the runtime as well.
    monkeypatch.setattr("flawline.runtime.gpu.device._lost", set())
    monkeypatch.setattr("flawline.runtime.gpu.device._contexts", {})
    loaded_standin.restart()
    find_driver.cache_clear()
    yield loaded_standin
    misuses, live = loaded_standin.misuses, loaded_standin.live
    loaded_standin.restart()
    find_driver.cache_clear()
    assert misuses == []
    assert set(live.values()) == {0}, live


@pytest.fixture
def gpu(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, where an emulated engine takes the place of TensorRT."""
    monkeypatch.setattr(
        "flawline.runtime.gpu.tensorrt_engines.tensorrt_opener",
        lambda bundle, device, *, batch: emulated(bundle, batch),
    )
    return standin


@pytest.fixture
def frames() -> Callable[..., list[np.ndarray]]:
    """Makes grey frames, uint8 (height, width) each, of smooth and rough parts."""

    def make(*shapes: tuple[int, ...]) -> list[np.ndarray]:
        generator = np.random.default_rng(len(shapes))
        return [
            np.clip(128 + 40 * np.sin(np.indices(shape)[0] / 5) + generator.normal(0, 12, shape), 0, 255).astype(
                np.uint8
            )
            for shape in shapes
        ]

    return make
