"""Builds the images that a wheel carries, and says what each kernel takes of a GPU: `make cuda`.

  python -m flawline.runtime.kernels.cuda.prebuilding

Needs nvcc of CUDA 13 and NVRTC of CUDA 12. Ends with status 1 if a kernel spills registers into memory.
"""

import sys
from collections.abc import Iterator, Sequence

from flawline.runtime.errors import FlawlineError, MissingExtraError
from flawline.runtime.files import write_whole
from flawline.runtime.kernels.cuda.compiler import KERNELS, PREBUILT, Prebuilt
from flawline.runtime.kernels.cuda.resources import Resources, read_resources
from flawline.runtime.kernels.cuda.sources import Sources, read_sources
from flawline.runtime.kernels.cuda.toolkits import Compiled, Nvcc, find_compilers


def prebuild(sources: Sources) -> Iterator[tuple[Prebuilt, Compiled]]:
    """Builds every image of a module beside its source, in place of those of earlier sources.

    Args:
        sources: Of the module.

    Yields:
        Each image, once it is written.

    Raises:
        MissingExtraError: A compiler is missing.
        CompileError: A compiler refuses the source.
        InputError: The folder may not be written to.
        ResourceError: The disk is full.
    """
    for one in PREBUILT:
        made = _build(one, sources)
        for old in sources.path.parent.glob(f"{sources.path.stem}-*-{one.suffix}"):
            old.unlink()
        write_whole(one.path(sources), made.image)
        yield one, made


def table(resources: Sequence[Resources]) -> list[str]:
    """Lines that tell registers and spilled bytes of every kernel, an architecture to a column.

    Args:
        resources: Of the kernels of one image.
    """
    architectures = list(dict.fromkeys(one.architecture for one in resources))
    cells = {(one.kernel, one.architecture): one for one in resources}
    kernels = sorted({one.kernel for one in resources})
    width = max(map(len, kernels))
    lines = ["".join((f"{'registers':{width}}", *(f"{name:>20}" for name in architectures)))]
    for kernel in kernels:
        texts = []
        for architecture in architectures:
            one = cells[kernel, architecture]
            texts.append(f"{one.registers}" + (f", {one.spilled_bytes} B spilled" if one.spilled_bytes else ""))
        lines.append("".join((f"{kernel:{width}}", *(f"{text:>20}" for text in texts))))
    return lines


def main() -> int:
    """Builds the images of all kernels, and tells of their resources."""
    spilling = 0
    try:
        for one, made in prebuild(read_sources(KERNELS)):
            resources = list(read_resources(made.log))
            spilling += sum(kernel.spilled_bytes > 0 for kernel in resources)
            sys.stdout.write("\n".join([f"{one.suffix}: {len(made.image)} bytes", *table(resources), "", ""]))
    except FlawlineError as error:
        sys.stderr.write(f"make cuda: {error}\n")
        return 2
    if spilling:
        sys.stderr.write(f"make cuda: {spilling} kernels spill registers into memory; expected none\n")
    return int(spilling > 0)


def _build(one: Prebuilt, sources: Sources) -> Compiled:
    for compiler in find_compilers():
        if compiler.version[0] != one.cuda:
            continue
        if one.ptx is None:
            (arch,) = one.architectures
            return compiler.compile(sources, arch)
        if isinstance(compiler, Nvcc):
            return compiler.compile_all(sources, one.architectures, one.ptx)
    wanted = f"nvcc of CUDA {one.cuda}" if one.ptx else f"NVRTC or nvcc of CUDA {one.cuda}"
    raise MissingExtraError(f"{one.suffix} cannot be built: this machine has no {wanted}; `make cuda` installs it")


if __name__ == "__main__":
    sys.exit(main())
