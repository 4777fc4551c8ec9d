"""The stand-in driver (`driver.cpp`): built, loaded in place of libcuda.so.1, and asked what happened."""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1")


def build_driver(cache: Path) -> Path:
    """Compiles the stand-in, unless the cache has it.

    Args:
        cache: Folder of compiled libraries, which are named by what they were compiled from.

    Returns:
        The shared library.
    """
    sources = sorted(HERE.glob("driver*.cpp"))
    wanted = sorted(_symbols(_pycuda(), defined=False))
    digest = hashlib.sha256(" ".join([*FLAGS, *wanted]).encode())
    for path in (*sources, *sorted(HERE.glob("driver_*.h"))):
        digest.update(path.read_bytes())
    folder = cache / f"driver-{digest.hexdigest()[:16]}"
    library = folder / "libcuda.so.1"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        headers = importlib.metadata.distribution("nvidia-cuda-runtime").locate_file("nvidia/cu13/include")
        # Renamed when it is whole, since several processes may build the same one.
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = ["g++", *FLAGS, "-isystem", str(headers), "-o", str(unfinished), *map(str, sources)]
        subprocess.run([*command, "-ldl"], check=True)
        missing = sorted(set(wanted) - _symbols(unfinished, defined=True))
        stubs = "".join(f'extern "C" int {name}() {{ return standin_unsupported("{name}"); }}\n' for name in missing)
        text = 'extern "C" int standin_unsupported(const char*);\n' + stubs
        subprocess.run([*command, "-x", "c++", "-", "-ldl"], input=text, text=True, check=True)
        unfinished.replace(library)
    return library


class StandIn:
    """The stand-in, loaded into this process. PyCUDA and the runtime then find it under the driver's name.

    Args:
        library: What `build_driver` made.
    """

    def __init__(self, library: Path) -> None:
        self._loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self._loaded.standin_calls.restype = ctypes.c_long
        self._loaded.standin_misuses.restype = self._loaded.standin_live.restype = ctypes.c_char_p

    def reset(self, **settings: object) -> None:
        """Begins anew: no calls, no misuses. A GPU that is lost stays so.

        Args:
            settings: What it shall be, as `driver_faults.h` lists it: ``fail="cuMemAlloc@3=2"``, ``integrated=1``.
        """
        for name in [name for name in os.environ if name.startswith("STANDIN_")]:
            del os.environ[name]
        os.environ.update({f"STANDIN_{name.upper()}": str(value) for name, value in settings.items()})
        self._loaded.standin_reset()

    def restart(self) -> None:
        """Does what a new process does: a GPU that was lost is there again, with nothing on it."""
        self._loaded.standin_restart()
        self.reset()

    def calls(self, name: str) -> int:
        """How often a function was called since the reset; of ``kernel``, how many kernels ran."""
        return int(self._loaded.standin_calls(name.encode()))

    @property
    def misuses(self) -> list[str]:
        """What was done that a driver need not put up with."""
        return str(self._loaded.standin_misuses().decode()).splitlines()

    @property
    def live(self) -> dict[str, int]:
        """Objects that exist, and contexts that are current in this thread."""
        lines = self._loaded.standin_live().decode().splitlines()
        return {name: int(number) for name, _, number in (line.rpartition(" ") for line in lines)}


def _pycuda() -> Path:
    package = importlib.util.find_spec("pycuda")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pycuda is not installed; `make test` builds it")
    (library,) = Path(package.origin).parent.glob("_driver*.so")
    return library


def _symbols(library: Path, *, defined: bool) -> set[str]:
    """Functions of the driver that a library defines, or that it needs."""
    which = "--defined-only" if defined else "--undefined-only"
    listed = subprocess.run(["nm", "-D", which, str(library)], capture_output=True, text=True, check=True).stdout
    return {name for line in listed.splitlines() if (name := line.split()[-1]).startswith("cu")}
