"""Checks of arrays before native code sees their pointers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

Dimension = int | str


def require(
    name: str,
    array: Any,
    dtypes: npt.DTypeLike | tuple[npt.DTypeLike, ...],
    shape: Sequence[Dimension],
    *,
    writeable: bool = False,
) -> None:
    """Refuses what is not a C-contiguous, aligned NumPy array of the expected dtype and shape.

    Args:
        name: What the array is called in the error.
        array: What was received.
        dtypes: The dtype, or those that are allowed.
        shape: One entry per axis: its size, or a name for an axis of any size but 0.
        writeable: Whether results are to be written into it.

    Raises:
        InputError: The array is something else.
    """
    allowed = [np.dtype(dtype) for dtype in (dtypes if isinstance(dtypes, tuple) else (dtypes,))]

    def expected() -> str:
        # Only where it is told: words for dtypes take longer than all checks, which are in the frame loop.
        return f"{' or '.join(map(str, allowed))} ({', '.join(map(str, shape))})"

    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: received {type(array).__name__}, expected a NumPy array {expected()}")
    fits = array.ndim == len(shape) and all(
        size == want if isinstance(want, int) else size > 0 for size, want in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype not in allowed:
        raise InputError(f"{name}: received {array.dtype} {array.shape}, expected {expected()}")
    if not array.flags.c_contiguous:
        raise InputError(f"{name}: received a view that is not C-contiguous, expected {expected()}; copy it first")
    if not array.flags.aligned:
        raise InputError(
            f"{name}: received memory that is not aligned to its dtype, expected {expected()}; copy it first"
        )
    if writeable and not array.flags.writeable:
        raise InputError(f"{name}: received a read-only array, expected one that results can be written to")


def require_count(name: str, value: int, least: int = 1) -> None:
    """Refuses a number that is not an integer of at least `least`.

    Raises:
        InputError: The value is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: received {value!r}, expected an integer of at least {least}")
