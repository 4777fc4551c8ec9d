"""The gate of the packed factors: the kernel's distances against a float64 solve with the covariances they stand for."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.calibration.statistics import FactorType, Statistics
from flawline.calibration.woodbury import Form
from flawline.export.parity import ParityError, textbook_distances
from flawline.runtime.bundle.manifest import Report
from flawline.runtime.kernels import mahalanobis

IMAGES = 16
"""Held-out images whose embeddings are compared, at every position."""


class Tolerance(NamedTuple):
    """What passes.

    Attributes:
        p99: Largest 99th percentile of the relative error of a distance.
        maximum: Largest relative error of any.
    """

    p99: float
    maximum: float


# At least twice the largest errors seen on held-out solar cells (mono and poly) and magnetic tiles with two networks, 30 to
# 240 images, 1 to 448 dimensions, epsilon from 1e-4 on, every tying, mixtures and shrinkage. Those were, 99th percentile
# and maximum: triangles of fp32 8.6e-7 and 3.9e-6, of fp16 4.4e-4 and 6.7e-4, of int8 0.043 and 0.105 (at 448 dimensions;
# at 100 0.013 and 0.043); R of fp32 2.6e-6 and 1.6e-5, of fp16 1.6e-3 and 8.3e-3. Twice that for fp16 triangles, because
# features of a rank less than d, with good images in their span, double what is seen.
TOLERANCES: dict[tuple[Form, FactorType], Tolerance] = {
    ("triangle", "fp32"): Tolerance(2e-6, 1e-5),
    ("triangle", "fp16"): Tolerance(1.5e-3, 3e-3),
    ("triangle", "int8"): Tolerance(0.1, 0.25),
    ("woodbury", "fp32"): Tolerance(6e-6, 4e-5),
    ("woodbury", "fp16"): Tolerance(4e-3, 2e-2),
}

# Of the largest distance: what a smaller one is off by is taken relative to this share, since it decides no verdict and,
# where a background does not vary, may be zero.
_LEAST_SHARE = 0.01


def check(embeddings: npt.NDArray[np.float32], statistics: Statistics, factors: FactorType, *, threads: int) -> Report:
    """Measures what packing does to distances, and lets pass only what its type and form promise.

    Args:
        embeddings: float32 (B, P, d), of held-out images.
        statistics: Packed Gaussians, and the means and regularised covariances in float64 that they stand for.
        factors: Type of the packed factors.
        threads: Threads of the kernel.

    Returns:
        What the parity report says of it.

    Raises:
        ParityError: An error is beyond its tolerance, or a distance is not a number.
    """
    expected = textbook_distances(embeddings, statistics)
    received = mahalanobis(embeddings, statistics.gaussians, threads=threads)
    least = max(_LEAST_SHARE * float(expected.max()), float(np.finfo(np.float32).tiny))
    errors = np.abs(received - expected) / np.maximum(expected, least)
    p99, worst = float(np.percentile(errors, 99, method="higher")), float(errors.max())
    form = statistics.gaussians.form
    tolerance = TOLERANCES[form, factors]
    if not (p99 <= tolerance.p99 and worst <= tolerance.maximum):
        raise ParityError(
            f"the packed {factors} factors ({form}) do not give the distances of their covariances: relative error {p99:.2g} "
            f"(99th percentile) to {worst:.2g} (largest) on {len(errors)} held-out images, tolerances {tolerance.p99:g} and "
            f"{tolerance.maximum:g}; take --factors fp32 or --form triangle, or raise --epsilon; nothing was written"
        )
    return {
        "factor_images": len(errors),
        "factor_error_p99": p99,
        "factor_error_max": worst,
        "factor_error_p99_tolerance": tolerance.p99,
        "factor_error_max_tolerance": tolerance.maximum,
    }
