"""Engines that run the feature graph: one file per engine, one table of them, one way to open them."""

import importlib.metadata
import importlib.util
from collections.abc import Collection
from typing import NamedTuple, Protocol

from flawline.runtime.backends import onnx_outputs
from flawline.runtime.backends.base import Backend
from flawline.runtime.backends.buffers import InputShape, OutputShapes
from flawline.runtime.backends.openvino import OpenVinoBackend
from flawline.runtime.backends.ort import OrtBackend
from flawline.runtime.errors import BundleError, EngineError, InputError
from flawline.runtime.precisions import ENGINES, PRECISIONS, Precision

__all__ = ["BACKENDS", "Backend", "Engine", "installed", "open_backend", "preferred_engine", "version"]


class _Opener(Protocol):
    def __call__(
        self,
        features: bytes,
        input_shape: InputShape,
        output_shapes: OutputShapes,
        *,
        threads: int,
        precision: Precision,
        open_size: bool,
    ) -> Backend: ...


class Engine(NamedTuple):
    """A row of `BACKENDS`.

    Attributes:
        open: Loads a feature graph.
        module: What is imported.
        distributions: Packages that bring this module.
        extra: Extra of this package that installs it.
    """

    open: _Opener
    module: str
    distributions: tuple[str, ...]
    extra: str


BACKENDS = {
    "onnxruntime": Engine(
        OrtBackend, "onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), extra="ort"
    ),
    "openvino": Engine(OpenVinoBackend, "openvino", ("openvino",), extra="openvino"),
}
"""Engines by name; the first is the one that runs everywhere."""


def installed() -> tuple[str, ...]:
    """Names of the engines that can be imported here, in the order of `BACKENDS`; imports none of them."""
    return tuple(name for name, engine in BACKENDS.items() if _is_there(engine.module))


def preferred_engine(precision: Precision) -> str:
    """The first engine for a precision that is installed; the first of all if none is."""
    return next((engine for engine in ENGINES[precision] if engine in installed()), ENGINES[precision][0])


def version(name: str) -> str | None:
    """Version of an engine as its package states it, or None if it is not installed that way; imports nothing."""
    for distribution in BACKENDS[name].distributions if name in BACKENDS else (name,):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def open_backend(
    name: str,
    features: bytes,
    input_shape: InputShape,
    output_shapes: OutputShapes,
    *,
    threads: int = 1,
    precision: Precision = "fp32",
    open_size: bool = False,
    needed: Collection[int] | None = None,
) -> Backend:
    """Loads a feature graph.

    Args:
        name: Name of the engine.
        features: Bytes of the ONNX file.
        input_shape: Of the uint8 input, (B, H, W, C) or (B, C, H, W).
        output_shapes: (B, d, h, w) of each output, in the graph's order.
        threads: Threads that compute.
        precision: Arithmetic that the file is made for.
        open_size: Whether the graph may leave height and width open.
        needed: Indices of the outputs that are wanted; the others are not computed, and nothing is allocated for them. All
            if None.

    Raises:
        InputError: Engine or precision is unknown, they do not go together, or the number of threads is not positive.
        MissingExtraError: The engine is not installed.
        EngineError: The engine refuses the graph, or the processor the precision.
        BundleError: The shapes do not fit the graph.
        ResourceError: Buffers of these shapes would not fit into memory.
    """
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")
    if precision not in ENGINES:
        raise InputError(f"precision '{precision}' is unknown; expected one of {', '.join(PRECISIONS)}")
    if name not in BACKENDS:
        raise InputError(f"backend '{name}' is unknown; expected one of {', '.join(BACKENDS)}")
    if name not in ENGINES[precision]:
        capable = " or ".join(ENGINES[precision])
        raise InputError(f"{name} does not compute in precision '{precision}'; take --backend {capable}")
    if needed is not None and len(needed) < len(output_shapes):
        features = _cut(features, needed, outputs=len(output_shapes))
        output_shapes = [shape for index, shape in enumerate(output_shapes) if index in needed]
    return BACKENDS[name].open(
        features, input_shape, output_shapes, threads=threads, precision=precision, open_size=open_size
    )


def _cut(features: bytes, needed: Collection[int], *, outputs: int) -> bytes:
    try:
        found = onnx_outputs.outputs_of(features)
        if found == outputs:
            return onnx_outputs.cut(features, needed)
    except ValueError as error:
        raise EngineError(f"the feature graph cannot be read: {error}") from error
    raise BundleError(f"the feature graph gives {found} outputs; the manifest says {outputs}")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        # A module that was made unfindable, or stands in `sys.modules` without a spec.
        return False
