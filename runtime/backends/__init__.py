"""Engines that run the feature graph: one file per engine, one way to open them."""

from collections.abc import Sequence

from flawline.runtime.backends.base import Backend
from flawline.runtime.backends.ort import OrtBackend
from flawline.runtime.errors import InputError

__all__ = ["BACKENDS", "Backend", "open_backend"]

BACKENDS = {"onnxruntime": OrtBackend}


def open_backend(
    name: str,
    features: bytes,
    input_shape: tuple[int, int, int, int],
    output_shapes: Sequence[tuple[int, int, int, int]],
    *,
    threads: int = 1,
) -> Backend:
    """Loads a feature graph.

    Args:
        name: Name of the engine, or `auto` for the best that is known.
        features: Bytes of the ONNX file.
        input_shape: (B, H, W, C) of the uint8 input.
        output_shapes: (B, d, h, w) of each output, in the graph's order.
        threads: Threads that compute.

    Raises:
        InputError: The engine is unknown or the number of threads is not positive.
        MissingExtraError: The engine is not installed.
        EngineError: The engine refuses the graph.
        BundleError: The shapes do not fit the graph.
        ResourceError: Buffers of these shapes would not fit into memory.
    """
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")
    chosen = next(iter(BACKENDS)) if name == "auto" else name
    if chosen not in BACKENDS:
        raise InputError(f"backend '{name}' is unknown; expected auto or one of {', '.join(BACKENDS)}")
    return BACKENDS[chosen](features, input_shape, output_shapes, threads=threads)
