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
    open_size: bool = False,
) -> None:
    """Compares what a graph takes and gives with what the manifest says, before anything of that size is allocated.

    Args:
        inputs: Inputs of the graph.
        outputs: Outputs of the graph.
        input_shape: (B, H, W, C) or (B, C, H, W) of the uint8 input in the manifest.
        output_shapes: (B, d, h, w) of each float32 output in the manifest.
        open_batch: Whether the graph may leave the first axis open; any other would be whatever the manifest makes it.
        open_size: Whether it may leave height and width open as well, as those for webs do.

    Raises:
        BundleError: They differ.
    """
    expected_inputs = [Port("uint8", input_shape)]
    expected_outputs = [Port("float32", shape) for shape in output_shapes]
    may_be_open = 3 if open_size else int(open_batch)
    if not (_fit(inputs, expected_inputs, may_be_open) and _fit(outputs, expected_outputs, may_be_open)):
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


def _fit(received: Sequence[Port], expected: Sequence[Port], may_be_open: int) -> bool:
    """Whether all agree: one open axis is the batch, three are all but the channels."""
    return len(received) == len(expected) and all(
        got == want or _is_open(got, want, may_be_open) for got, want in zip(received, expected, strict=True)
    )


def _is_open(got: Port, want: Port, may_be_open: int) -> bool:
    if got.dtype != want.dtype or len(got.shape) != len(want.shape) or got.shape.count(None) > may_be_open:
        return False
    differing = [
        axis for axis, (length, wanted) in enumerate(zip(got.shape, want.shape, strict=True)) if length != wanted
    ]
    return all(got.shape[axis] is None for axis in differing) and (may_be_open > 1 or differing == [0])


def _signature(inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    sides = (", ".join(map(str, ports)) or "nothing" for ports in (inputs, outputs))
    return " -> ".join(sides)
