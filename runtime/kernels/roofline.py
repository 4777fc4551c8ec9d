"""The fastest read of an array: what a kernel that reads the same bytes can be held against."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels.checks import require_count


def read_bandwidth(array: npt.NDArray[Any], threads: int = 1) -> float:
    """Reads every byte of an array once and says how fast that went.

    Args:
        array: Any dtype and shape, C-contiguous; large, or the clock's own time counts.
        threads: Threads to use, the calling one included.

    Returns:
        Bytes per second.

    Raises:
        InputError: The number of threads is not positive.
    """
    require_count("threads", threads)
    start = time.perf_counter_ns()
    np.bitwise_xor.reduce(array.reshape(-1).view(np.uint8))
    return array.nbytes * 1e9 / (time.perf_counter_ns() - start)
