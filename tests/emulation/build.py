"""CUDA sources compiled for the CPU (`emulator.h`) and their kernels, launched from NumPy."""

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels.cuda.plan import Launch

EMULATOR = Path(__file__).with_name("emulator.h")
SOURCES = Path(__file__).parents[2] / "runtime" / "kernels" / "cuda"
# Products and sums are fused where the sources say so and nowhere else, so that bits are those of a device.
FLAGS = ("-std=c++17", "-O2", "-mfma", "-mf16c", "-ffp-contract=off", "-Wno-unknown-pragmas")
ORDERS = 4
"""Orders of the threads of a block that tests try: forwards, backwards and two shuffles."""


def build(cache: Path, names: Sequence[str], sources: Path = SOURCES, flags: Sequence[str] = ()) -> Path:
    """Compiles kernels with g++, unless the cache has them.

    Args:
        cache: Folder of compiled libraries, which are named by what they were compiled from.
        names: The .cu files that go into the library.
        sources: Folder of the sources.
        flags: Further flags.

    Returns:
        The shared library.
    """
    command = ["g++", *FLAGS, *flags, "-shared", "-fPIC", "-include", str(EMULATOR), "-x", "c++"]
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + " ".join([*FLAGS, *flags, *names]).encode())
    for path in (EMULATOR, *sorted(sources.glob("*.cu*"))):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    library = cache / f"{'-'.join(Path(name).stem for name in names)}-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        # Renamed when it is whole, since several processes may build the same one.
        unfinished = library.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, *(str(sources / name) for name in names), "-o", str(unfinished)], check=True)
        unfinished.replace(library)
    return library


class LaunchError(Exception):
    """The emulator refused a launch, or threads that wait for each other ended it."""


class Emulator:
    """A device that is none: memory of the host, kernels of a library.

    Args:
        library: What `build` made.
    """

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.emulator_failure.restype = ctypes.c_char_p
        self._memory: dict[int, npt.NDArray[Any]] = {}

    def put(self, array: npt.NDArray[Any]) -> int:
        """Copies an array to the device: its address there, a multiple of 16."""
        # Of its exact size, so that the sanitizer sees an access past it.
        copy = np.array(array, order="C")
        self._memory[copy.ctypes.data] = copy
        return int(copy.ctypes.data)

    def get(self, address: int) -> npt.NDArray[Any]:
        """The array at an address."""
        return self._memory[address].copy()

    def launch(self, kernel: str, launch: Launch, job: npt.NDArray[np.void], order: int = 0) -> None:
        """Runs a kernel to its end.

        Args:
            kernel: Its name.
            launch: Its layout.
            job: Its argument.
            order: Which order the threads of a block run in: 0 forwards, 1 backwards, others shuffled.

        Raises:
            LaunchError: The layout is none, the job has another size than the kernel's struct, or threads hang.
        """
        expected = getattr(self._library, f"{kernel}_job_bytes")()
        if job.nbytes != expected:
            raise LaunchError(f"job of {kernel}: received {job.nbytes} bytes, expected {expected}")
        self._library.emulator_order(order)
        dimensions = [(ctypes.c_uint * 3)(*sizes) for sizes in (launch.grid, launch.block)]
        run = getattr(self._library, f"{kernel}_emulated")
        if run(*dimensions, launch.shared_bytes, ctypes.c_void_p(job.ctypes.data)):
            raise LaunchError(self._library.emulator_failure().decode())
