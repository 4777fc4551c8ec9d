"""What a measurement on a GPU was made with, besides what `flawline.benchmarks.environment` tells of the host."""

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.device import Device

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")

_STATE = (
    ("nvpmodel", "-q"),
    (
        "nvidia-smi",
        "--query-gpu=driver_version,power.limit,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,utilization.gpu",
        "--format=csv,noheader",
    ),
)


@dataclass(frozen=True)
class Gpu:
    """A GPU. Results of different ones are never merged. Numbers that its driver does not tell are 0.

    Attributes:
        name: Its name.
        arch: Its compute capability, as "8.7".
        cuda: The release of CUDA that its driver supports.
        integrated: Whether its memory is the host's.
        memory_bytes: All of it.
        l2_bytes: Size of the second-level cache.
        multiprocessors: How many.
        clock_hz: The highest.
        peak_bytes_per_second: Of the memory, by its clock and the width of its bus.
        ecc: Whether errors of the memory are corrected.
        state: What tells the power mode: of nvpmodel on a Jetson, of nvidia-smi elsewhere; None without either.
    """

    name: str
    arch: str
    cuda: str
    integrated: bool
    memory_bytes: int
    l2_bytes: int
    multiprocessors: int
    clock_hz: float
    peak_bytes_per_second: float
    ecc: bool
    state: str | None

    def summary(self) -> str:
        """One line for the head of a table."""
        return (
            f"{self.name} (compute capability {self.arch}), {self.multiprocessors} multiprocessors, "
            f"{self.memory_bytes / 1e9:.0f} GB at {self.peak_bytes_per_second / 1e9:.0f} GB/s by its clock, "
            f"L2 {self.l2_bytes / 1e6:.0f} MB, CUDA {self.cuda}" + (f"; {self.state}" if self.state else "")
        )


def describe_gpu(device: Device) -> Gpu:
    """Asks the driver and changes nothing.

    Args:
        device: The GPU.
    """
    asked = ("L2_CACHE_SIZE", "MULTIPROCESSOR_COUNT", "CLOCK_RATE", "MEMORY_CLOCK_RATE", "GLOBAL_MEMORY_BUS_WIDTH")
    with device.current("while it was described"):
        told = {name: _attribute(name) for name in (*asked, "ECC_ENABLED")}
        _, memory_bytes = device.memory_bytes()
    return Gpu(
        name=device.name,
        arch="{}.{}".format(*device.arch),
        cuda="{}.{}".format(*device.driver.version),
        integrated=device.integrated,
        memory_bytes=memory_bytes,
        l2_bytes=told["L2_CACHE_SIZE"],
        multiprocessors=told["MULTIPROCESSOR_COUNT"],
        # The driver counts in kHz and bits; memory transfers twice per clock.
        clock_hz=1e3 * told["CLOCK_RATE"],
        peak_bytes_per_second=2 * 1e3 * told["MEMORY_CLOCK_RATE"] * told["GLOBAL_MEMORY_BUS_WIDTH"] / 8,
        ecc=bool(told["ECC_ENABLED"]),
        state=_state(),
    )


def _attribute(name: str) -> int:
    try:
        return int(cuda.Context.get_device().get_attribute(getattr(cuda.device_attribute, name)))
    except cuda.Error:
        return 0


def _state() -> str | None:
    for program, *options in _STATE:
        if path := shutil.which(program):
            try:
                done = subprocess.run([path, *options], capture_output=True, text=True, timeout=20, check=False)
            except (OSError, subprocess.TimeoutExpired):
                continue
            if done.returncode == 0:
                return "; ".join(done.stdout.split("\n")).strip("; ")
    return None
