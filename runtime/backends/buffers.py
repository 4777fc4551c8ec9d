"""What a feature graph takes and gives: compared with the manifest, then allocated, in this order."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import BundleError
from flawline.runtime.memory import require

InputShape = tuple[int, int, int, int]
OutputShapes = Sequence[tuple[int, int, int, int]]


class Port(NamedTuple):
    """An input or output of a graph, as an engine declares it.

    Attributes:
        dtype: Type of its elements, by NumPy's name.
        shape: Length of each axis; None where the graph leaves it open.
    """

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join('?' if length is None else str(length) for length in self.shape)})"


def check_signature(
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    input_shape: InputShape,
    output_shapes: OutputShapes,
    *,
    open_batch: bool = True,
) -> None:
    """Compares what a graph takes and gives with what the manifest says, before anything of that size is allocated.

    Args:
        inputs: Inputs of the graph.
        outputs: Outputs of the graph.
        input_shape: (B, H, W, C) or (B, C, H, W) of the uint8 input in the manifest.
        output_shapes: (B, d, h, w) of each float32 output in the manifest.
        open_batch: Whether the graph may leave the first axis open; any other would be whatever the manifest makes it.

    Raises:
        BundleError: They differ.
    """
    expected_inputs = [Port("uint8", input_shape)]
    expected_outputs = [Port("float32", shape) for shape in output_shapes]
    if not (_fit(inputs, expected_inputs, open_batch) and _fit(outputs, expected_outputs, open_batch)):
        raise BundleError(
            f"the feature graph takes and gives {_signature(inputs, outputs)}; "
            f"the manifest says {_signature(expected_inputs, expected_outputs)}"
        )


def allocate(
    input_shape: InputShape, output_shapes: OutputShapes
) -> tuple[npt.NDArray[np.uint8], tuple[npt.NDArray[np.float32], ...]]:
    """The buffers that an engine reads and writes in place.

    Raises:
        ResourceError: They would not fit into memory.
    """
    require(
        math.prod(input_shape) + 4 * sum(map(math.prod, output_shapes)),
        f"a feature graph from {input_shape} to {', '.join(map(str, output_shapes))}",
        "fit with a smaller image size or dimension",
    )
    return np.zeros(input_shape, np.uint8), tuple(np.zeros(shape, np.float32) for shape in output_shapes)


def _fit(received: Sequence[Port], expected: Sequence[Port], open_batch: bool) -> bool:
    return len(received) == len(expected) and all(
        got == want or (open_batch and got == Port(want.dtype, (None, *want.shape[1:])))
        for got, want in zip(received, expected, strict=True)
    )


def _signature(inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    sides = (", ".join(map(str, ports)) or "nothing" for ports in (inputs, outputs))
    return " -> ".join(sides)
