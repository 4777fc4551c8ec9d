"""The fastest read of an array: what a kernel that reads the same bytes can be held against."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import _native
from flawline.runtime.kernels.implementations import choose, implementations


def read_bandwidth(array: npt.NDArray[Any], threads: int = 1) -> float:
    """Reads every byte of an array once and says how fast that went.

    Args:
        array: Any dtype and shape, C-contiguous; large, or the clock's own time counts.
        threads: Threads to use, the calling one included.

    Returns:
        Bytes per second.

    Raises:
        InputError: The array is empty or not contiguous, or the number of threads is out of range.
    """
    choose(None, threads)
    if not array.flags.c_contiguous or not array.nbytes:
        raise InputError(f"array: received {array.shape}, expected a C-contiguous array that is not empty")
    data = array.reshape(-1).view(np.uint8)
    start = time.perf_counter_ns()
    _native.checksum(implementations()[0], data, threads)
    return array.nbytes * 1e9 / (time.perf_counter_ns() - start)
