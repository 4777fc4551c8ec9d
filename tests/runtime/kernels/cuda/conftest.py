import platform
import shutil
from pathlib import Path

import pytest

from tests.emulation.build import Emulator, build


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


@pytest.fixture
def device(kernel_library: Path) -> Emulator:
    """What runs the kernels; its memory ends with the test."""
    return Emulator(kernel_library)
