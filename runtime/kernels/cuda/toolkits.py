"""The compilers of CUDA C++ that a machine has: NVRTC, a library that needs no host compiler, and nvcc."""

import ctypes
import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from flawline.runtime.errors import FlawlineError
from flawline.runtime.kernels.cuda.sources import FOLDER, Sources

Version = tuple[int, int]
OPTIONS = ("-std=c++17", "-Xptxas=-v")
_TIMEOUT_S = 600


class CompileError(FlawlineError):
    """A compiler does not take a source."""


class Compiled(NamedTuple):
    """What a compiler made.

    Attributes:
        image: A cubin or a fatbin, for the driver to load.
        log: What the compiler said, with the resources that each kernel takes.
    """

    image: bytes
    log: str


class Compiler(Protocol):
    """Compiles for one architecture."""

    @property
    def name(self) -> str:
        """Of the compiler, with its version."""

    @property
    def version(self) -> Version:
        """The release of CUDA that it belongs to. Drivers of an older major release refuse what it makes."""

    def compile(self, sources: Sources, arch: Version) -> Compiled:
        """Makes a cubin for a compute capability.

        Raises:
            CompileError: The compiler does not know the architecture, or refuses the source.
        """


class Nvcc:
    """The compiler of a CUDA toolkit. Needs a C++ compiler beside it.

    Args:
        path: The program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def version(self) -> Version:
        """The release of CUDA that it belongs to."""
        release = re.search(r"release (\d+)\.(\d+)", self._run(["--version"]))
        if release is None:
            raise CompileError(f"{self.path} --version names no release; expected nvcc of a CUDA toolkit")
        return int(release[1]), int(release[2])

    @property
    def name(self) -> str:
        """Of the compiler, with its version."""
        return "nvcc {}.{}".format(*self.version)

    def compile(self, sources: Sources, arch: Version) -> Compiled:
        """Makes a cubin for a compute capability."""
        return self._make(sources, ["-cubin", f"-arch={sm(arch)}"])

    def compile_all(self, sources: Sources, architectures: Sequence[Version], ptx: Version) -> Compiled:
        """Makes a fatbin.

        Args:
            sources: What is compiled.
            architectures: Compute capabilities that it holds machine code for.
            ptx: The lowest one that can translate its PTX.

        Raises:
            CompileError: The compiler does not know an architecture, or refuses the source.
        """
        targets = [(arch, sm(arch)) for arch in architectures] + [(ptx, _compute(ptx))]
        generated = [f"-gencode=arch={_compute(arch)},code={code}" for arch, code in targets]
        return self._make(sources, ["-fatbin", *generated])

    def _make(self, sources: Sources, options: Sequence[str]) -> Compiled:
        with tempfile.TemporaryDirectory() as folder:
            image = Path(folder) / "image"
            log = self._run([*OPTIONS, *options, f"-I{FOLDER}", "-o", str(image), str(sources.path)])
            return Compiled(image.read_bytes(), log)

    def _run(self, words: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                [str(self.path), *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompileError(f"{self.path} cannot be run: {error}") from error
        if done.returncode:
            raise CompileError(f"{self.path}: {_first_error(done.stderr)}")
        return done.stdout + done.stderr


class Nvrtc:
    """The compiler in the form of a library.

    Args:
        path: The library.

    Raises:
        CompileError: It cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise CompileError(f"{path} cannot be loaded: {error}") from error
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = (major.value, minor.value)

    @property
    def name(self) -> str:
        """Of the compiler, with its version."""
        return "NVRTC {}.{}".format(*self.version)

    def compile(self, sources: Sources, arch: Version) -> Compiled:
        """Makes a cubin for a compute capability."""
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program),
                sources.text.encode(),
                sources.path.name.encode(),
                len(sources.headers),
                _strings([*sources.headers.values()]),
                _strings([*sources.headers]),
            )
        )
        try:
            options = [*OPTIONS, f"-arch={sm(arch)}"]
            code = self._library.nvrtcCompileProgram(program, len(options), _strings(options))
            log = self._take(program, "nvrtcGetProgramLog").decode(errors="replace").rstrip("\0")
            if code:
                raise CompileError(f"{self.name}: {_first_error(log)}")
            return Compiled(self._take(program, "nvrtcGetCUBIN"), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _take(self, program: ctypes.c_void_p, name: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(self._library[f"{name}Size"](program, ctypes.byref(size)))
        data = ctypes.create_string_buffer(size.value)
        self._check(self._library[name](program, data))
        return data.raw

    def _check(self, code: int) -> None:
        if code:
            raise CompileError(f"NVRTC: {self._library.nvrtcGetErrorString(code).decode()}")


def find_compilers() -> Iterator[Compiler]:
    """The compilers of this machine, NVRTC before nvcc.

    Toolkits that CUDA_HOME and CUDA_PATH name come first, then that of the system, then those of Python packages.
    """
    for library in _libraries():
        try:
            yield Nvrtc(library)
        except CompileError:
            # A library for another processor, or half removed, is none.
            continue
    for path in _programs():
        yield Nvcc(path)


def sm(arch: Version) -> str:
    """What compilers call the machine code of a compute capability, as sm_87."""
    return "sm_{}{}".format(*arch)


def _compute(arch: Version) -> str:
    return "compute_{}{}".format(*arch)


def _roots() -> list[Path]:
    named = [Path(value) for name in ("CUDA_HOME", "CUDA_PATH") if (value := os.environ.get(name))]
    packages = importlib.util.find_spec("nvidia")
    locations = (packages.submodule_search_locations or ()) if packages else ()
    installed = [root for location in locations for root in sorted(Path(location).iterdir(), reverse=True)]
    return [*named, Path("/usr/local/cuda"), *installed]


def _libraries() -> list[Path]:
    folders = [root / part for root in _roots() for part in ("lib64", "lib")]
    # One library goes by several names.
    found = dict.fromkeys(path.resolve() for folder in folders for path in sorted(folder.glob("libnvrtc.so*")))
    known = ctypes.util.find_library("nvrtc")
    return [*found, *([Path(known)] if known and not found else ())]


def _programs() -> list[Path]:
    known = shutil.which("nvcc")
    found = [*(root / "bin/nvcc" for root in _roots()), *([Path(known)] if known else ())]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _strings(texts: Sequence[str]) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next(
        (line for line in lines if "error" in line or "fatal" in line), lines[0] if lines else "no reason given"
    )
