import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.module import Kernels
from tests.emulation.build import Emulator, build
from tests.gpu import real


@pytest.fixture(scope="session")
def emulation_cache(request: pytest.FixtureRequest) -> Path:
    """Folder of kernels that were compiled for the CPU, kept from one run of the tests to the next."""
    if shutil.which("g++") is None or platform.machine() != "x86_64":
        pytest.skip("kernels are emulated by what g++ makes of them for an x86-64 CPU")
    return request.config.cache.mkdir("emulation")


@pytest.fixture(scope="session")
def kernel_library(emulation_cache: Path) -> Path:
    """Library of all kernels."""
    return build(emulation_cache, ["kernels.cu"])


@pytest.fixture(scope="session")
def gpu_and_kernels(request: pytest.FixtureRequest) -> tuple[Device, Kernels]:
    """The GPU of this machine, and the kernels compiled for it."""
    gpu = real.find(request.config)
    with gpu.current("while its kernels were loaded"):
        return gpu, Kernels(gpu)


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[Emulator | real.RealGpu]:
    """What runs the kernels, the emulator or a GPU; its memory ends with the test."""
    if request.param == "emulated":
        yield Emulator(request.getfixturevalue("kernel_library"))
        return
    with real.opened(*request.getfixturevalue("gpu_and_kernels")) as gpu:
        yield gpu
