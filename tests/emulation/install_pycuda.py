"""Installs PyCUDA on a machine without CUDA, for tests on the stand-in driver.

PyPI has its source alone. It is compiled against NVIDIA's headers, which come as wheels, and linked to an empty library
under the driver's name: what it needs of the driver is looked for when it is imported. Without optimisation, since that
takes longer than it saves. On a device, `pip install pycuda` is the way.
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASE = "pycuda==2026.1"

SETTINGS = """\
CUDA_INC_DIR = [{headers!r}]
CUDADRV_LIB_DIR = [{libraries!r}]
CUDADRV_LIBNAME = ["cuda"]
CUDA_ENABLE_CURAND = False
CXXFLAGS = ["-O0", "-w"]
"""


def headers() -> Path:
    """Folder of cuda.h in this environment."""
    return Path(str(importlib.metadata.distribution("nvidia-cuda-runtime").locate_file("nvidia/cu13/include")))


def main() -> None:
    """Builds the wheel and installs it, unless PyCUDA is there already."""
    try:
        importlib.metadata.version("pycuda")
    except importlib.metadata.PackageNotFoundError:
        with tempfile.TemporaryDirectory() as folder:
            _install(Path(folder))


def _install(folder: Path) -> None:
    empty = folder / "libcuda.so"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(empty), "-x", "c", "-"]
    subprocess.run(command, input="", text=True, check=True)
    # Where its build looks for settings beside its own folder, which is inside an archive.
    settings = folder / ".aksetup-defaults.py"
    settings.write_text(SETTINGS.format(headers=str(headers()), libraries=str(folder)))
    home = os.environ.get("HOME", "/")
    environment = {
        "XDG_CONFIG_HOME": f"{home}/.config",
        **os.environ,
        "HOME": str(folder),
        # Nothing of an empty library is used, and it must be asked for all the same.
        "LDFLAGS": "-Wl,--no-as-needed",
    }
    pip = [sys.executable, "-m", "pip"]
    # Without the cache: a wheel from it would be taken on a machine with CUDA too.
    build = [
        *pip,
        "wheel",
        "--quiet",
        "--no-cache-dir",
        "--no-deps",
        "--no-binary",
        "pycuda",
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run([*build, RELEASE], env=environment, check=True)
    (wheel,) = folder.glob("pycuda-*.whl")
    subprocess.run([*pip, "install", "--quiet", str(wheel)], check=True)


if __name__ == "__main__":
    main()
