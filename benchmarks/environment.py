"""The machine and the software that a measurement was made with; without them a number means nothing."""

import importlib.metadata
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from flawline import __version__
from flawline.runtime import kernels

LIBRARIES = ("numpy", "onnxruntime", "openvino", "opencv-python-headless", "torch", "onnx", "scikit-learn")
# What decides which kernel runs and how fast; the full list of a server is longer than the report.
# fmt: off
RELEVANT_FLAGS = frozenset((
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_fp16",
    "avx512_bf16", "avx512_vnni",
    "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16",
))
# fmt: on


@dataclass(frozen=True)
class Environment:
    """Where a measurement was made. Results of different machines are never merged.

    Attributes:
        machine: Architecture, as "x86_64".
        system: Operating system, release of the kernel and C library.
        board: Name of the board if the firmware tells (a Jetson does).
        cpu: Model name.
        cpu_flags: Instruction sets that matter here.
        cores: Cores this process may use.
        caches_bytes: Size per cache level of the first core, as {"L2": 2097152}.
        memory_bytes: Physical memory.
        governor: Frequency governor, if there is one.
        load_1min: Load average before the measurement: above zero means that others were running.
        python: Version.
        libraries: Version by name, of those installed.
        flawline: Version.
        commit: Commit of the working tree, with "+" if it was changed; None outside a repository.
        kernels: Implementations of the kernels that this machine can run, best first.
    """

    machine: str
    system: str
    board: str | None
    cpu: str
    cpu_flags: list[str]
    cores: int
    caches_bytes: dict[str, int]
    memory_bytes: int
    governor: str | None
    load_1min: float
    python: str
    libraries: dict[str, str]
    flawline: str
    commit: str | None
    kernels: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """Reasons why timings made here may be unstable."""
        found = []
        if self.load_1min > 0.25 * self.cores:
            found.append(f"load average {self.load_1min:.2f} on {self.cores} cores: others were running")
        if self.governor not in (None, "performance"):
            found.append(f"frequency governor is {self.governor}, not performance")
        return found

    def summary(self) -> str:
        """One line for the head of a table."""
        commit = f", commit {self.commit}" if self.commit else ""
        return (
            f"{self.cpu} ({self.machine}), {self.cores} cores, load {self.load_1min:.2f}, "
            f"kernels {'/'.join(self.kernels)}, Python {self.python}, flawline {self.flawline}{commit}"
        )


def describe() -> Environment:
    """Describes this machine and this installation; reads /proc and /sys, changes nothing."""
    cpuinfo = _read(Path("/proc/cpuinfo")) or ""
    return Environment(
        machine=platform.machine(),
        system=_system(),
        board=(_read(Path("/proc/device-tree/model")) or "").strip("\0\n ") or None,
        cpu=_field(cpuinfo, "model name") or _field(cpuinfo, "CPU part") or platform.processor() or "unknown",
        cpu_flags=sorted(RELEVANT_FLAGS.intersection((_field(cpuinfo, "flags|Features") or "").split())),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        caches_bytes=_caches(Path("/sys/devices/system/cpu/cpu0/cache")),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        governor=(_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or "").strip() or None,
        load_1min=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        libraries={name: version for name in LIBRARIES if (version := _version(name)) is not None},
        flawline=__version__,
        commit=_commit(),
        kernels=list(kernels.implementations()),
    )


def peak_memory_bytes() -> int:
    """The largest resident size that this process has had (VmHWM)."""
    return _memory_bytes("VmHWM")


def resident_memory_bytes() -> int:
    """The resident size that this process has now (VmRSS)."""
    return _memory_bytes("VmRSS")


def _memory_bytes(name: str) -> int:
    status = _read(Path("/proc/self/status")) or ""
    return int((_field(status, name) or "0 kB").split()[0]) * 1024


def _system() -> str:
    # The rest of a release is what its builder called it: no part of a measurement, and perhaps not for others to read.
    release = re.match(r"[0-9.]*[0-9]", platform.release())
    library = " ".join(platform.libc_ver()).strip()
    return f"{platform.system()} {release.group() if release else ''}".strip() + (f", {library}" if library else "")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^(?:{name})\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


def _caches(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if level and size and kind and kind.strip() != "Instruction":
            unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(size.strip()[-1], 1)
            sizes[f"L{level.strip()}"] = int(size.strip().rstrip("KMG")) * unit
    return sizes


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        # Unlike `git describe --dirty`, this can be told not to write the index.
        status = subprocess.run(
            [
                *("git", "--no-optional-locks", "-C", str(folder)),
                *("status", "--porcelain=v2", "--branch", "--untracked-files=no"),
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit = re.search(r"^# branch\.oid ([0-9a-f]{12})", status.stdout, re.MULTILINE)
    if commit is None:
        return None
    return commit.group(1) + ("+" if re.search(r"^[^#]", status.stdout, re.MULTILINE) else "")
