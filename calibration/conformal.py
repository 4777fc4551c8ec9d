"""Thresholds with a guaranteed false-reject rate, and p-values, by split conformal prediction.

Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World" (2005), section 2; Angelopoulos and Bates, "A
gentle introduction to conformal prediction" (2021), equation 1. If the n held-out good images and a new good image are
exchangeable, the new one is rejected with probability at most R.
"""

import math

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError


def images_needed(false_reject_rate: float) -> int:
    """The fewest held-out good images that can support a false-reject rate R: 1 / R - 1, rounded up.

    Raises:
        InputError: The rate is not between 0 and 1.
    """
    if not 0 < false_reject_rate < 1:
        raise InputError(f"false-reject rate is {false_reject_rate}; expected a number between 0 and 1, such as 0.05")
    # The subtraction of one part in 10^9 keeps 1 / 0.05 from becoming 21.
    return max(1, math.ceil(1 / false_reject_rate - 1 - 1e-9))


def threshold(scores: npt.NDArray[np.floating], false_reject_rate: float) -> float:
    """The smallest threshold that rejects a good image with probability at most the rate; scores above it are rejects.

    Args:
        scores: (n,) scores of held-out good images.
        false_reject_rate: R, between 0 and 1.

    Returns:
        The ceil((n + 1)(1 - R))-th smallest score.

    Raises:
        InputError: There are too few scores for the rate; the message names the smallest that can be had.
    """
    count = len(scores)
    needed = images_needed(false_reject_rate)
    if count < needed:
        raise InputError(
            f"a false-reject rate of {false_reject_rate:g} needs {needed} calibration images and there are {count}; "
            f"the smallest rate that {count} support is {1 / (count + 1):.4g}"
        )
    rank = math.ceil((count + 1) * (1 - false_reject_rate) - 1e-9)
    return float(np.sort(scores)[max(rank, 1) - 1])
