"""Kernels as images that a driver loads: built beforehand, or compiled on the device and kept.

A wheel may carry images (`prebuilding`). Where none suits, the sources are compiled for this one device and kept in the
user's cache folder, under a name that says of which sources, by which compiler and for which architecture.
"""

import os
from pathlib import Path
from typing import NamedTuple

from flawline.runtime.errors import MissingExtraError
from flawline.runtime.files import make_folder, write_whole
from flawline.runtime.kernels.cuda.sources import FOLDER, Sources, read_sources
from flawline.runtime.kernels.cuda.toolkits import CompileError, Compiler, Version, find_compilers, sm

KERNELS = "kernels"
"""The module that holds all kernels."""


class Prebuilt(NamedTuple):
    """What an image that was built beforehand runs on.

    Attributes:
        suffix: Of the file.
        cuda: The major release of CUDA that a driver must support at least.
        architectures: Compute capabilities that it holds machine code for. That of an integrated GPU runs on no other.
        ptx: The lowest compute capability whose driver can translate what else it holds; None if it holds nothing.
    """

    suffix: str
    cuda: int
    architectures: tuple[Version, ...]
    ptx: Version | None = None

    def path(self, sources: Sources) -> Path:
        """Where it lies, for sources as they are now."""
        return sources.path.with_name(f"{sources.path.stem}-{sources.digest}-{self.suffix}")


ORIN, HOPPER, THOR = (8, 7), (9, 0), (11, 0)
# Drivers of JetPack 6 take nothing newer than CUDA 12; what they take, those after them take as well.
PREBUILT = (
    Prebuilt("cuda12.cubin", 12, (ORIN,)),
    Prebuilt("cuda13.fatbin", 13, (ORIN, HOPPER, THOR), ptx=(8, 0)),
)


def load_image(name: str, arch: Version, *, driver: Version | None = None, folder: Path = FOLDER) -> bytes:
    """The kernels of a module for a GPU.

    An image that was built beforehand for this very architecture comes first, then one that is compiled here or was
    before, at last one that the driver must translate.

    Args:
        name: Of the module: `KERNELS` for all kernels.
        arch: Compute capability of the GPU.
        driver: The release of CUDA that its driver supports. Images of a newer major release are then left out.
        folder: Where the module's source lies.

    Returns:
        A cubin or a fatbin.

    Raises:
        MissingExtraError: Nothing suits, and the machine has no compiler for it.
        CompileError: Its compilers refuse the source.
        InputError: A source is missing, or the cache folder may not be written to.
        ResourceError: The disk of the cache folder is full.
    """
    sources = read_sources(name, folder)
    usable = [one for one in PREBUILT if driver is None or one.cuda <= driver[0]]
    for one in usable:
        if arch in one.architectures and one.path(sources).is_file():
            return one.path(sources).read_bytes()
    refusals: list[CompileError] = []
    for compiler in find_compilers():
        try:
            if driver is None or compiler.version[0] <= driver[0]:
                return _compiled(compiler, sources, arch)
        except CompileError as error:
            refusals.append(error)
    for one in usable:
        if one.ptx is not None and arch >= one.ptx and one.path(sources).is_file():
            return one.path(sources).read_bytes()
    if refusals:
        raise CompileError("; ".join(map(str, refusals))) from refusals[0]
    raise MissingExtraError(_missing(arch, driver))


def cache_folder() -> Path:
    """Where compiled kernels are kept: `flawline/kernels` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flawline" / "kernels"


def _compiled(compiler: Compiler, sources: Sources, arch: Version) -> bytes:
    name = f"{sources.path.stem}-{sources.digest}-{compiler.name.replace(' ', '')}-{sm(arch)}.cubin"
    kept = cache_folder() / name
    if kept.is_file():
        return kept.read_bytes()
    image = compiler.compile(sources, arch).image
    make_folder(kept.parent)
    write_whole(kept, image)
    return image


def _missing(arch: Version, driver: Version | None) -> str:
    bound = "" if driver is None else f" of CUDA {driver[0]} or older"
    package = "nvidia-cuda-nvrtc" if driver is None or driver[0] > 12 else f"nvidia-cuda-nvrtc-cu{driver[0]}"
    return (
        "no CUDA kernels for a GPU of compute capability {}.{}: none were built beforehand, and this machine has no "
        "compiler{}: expected NVRTC or nvcc; install the CUDA toolkit, or: pip install {}"
    ).format(*arch, bound, package)
