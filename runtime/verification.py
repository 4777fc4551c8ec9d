"""A device proves itself: the golden frames must score as they did where the bundle was made."""

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from flawline.runtime.errors import FlawlineError

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle, Golden
    from flawline.runtime.engines import AnyScorer


class GoldenCheck(msgspec.Struct, frozen=True):
    """How one golden frame scored.

    Attributes:
        expected: Score where the bundle was made.
        tolerance: What both errors may be.
        passed: Whether the frame was scored and both errors are within the tolerance.
        score: On this machine; None if there is none.
        relative_error: Of the score; None without one.
        map_relative_error: Largest difference of the maps, relative to the golden score; None without a score.
        problem: Why there is no score.
    """

    expected: float
    tolerance: float
    passed: bool
    score: float | None = None
    relative_error: float | None = None
    map_relative_error: float | None = None
    problem: str | None = None


def verify(bundle: "Bundle", scorer: "AnyScorer") -> list[GoldenCheck]:
    """Scores the golden frames of a bundle; those of one for webs are windows, with the context that a tile has.

    Args:
        bundle: In the precision that is wanted, with the map that it was written with.
        scorer: Of that bundle, see `open_scorer`.

    Returns:
        One entry per golden frame; one that cannot be scored, or not with a finite score, has not passed.
    """
    return [_check(bundle, scorer, golden) for golden in bundle.golden]


def golden_errors(score: float, anomaly_map: NDArray[np.float32], golden: "Golden") -> tuple[float, float]:
    """How far a score and a map are from a golden frame's, both relative to the golden score.

    Args:
        score: What a detector gives for the golden frame.
        anomaly_map: Likewise, float32 (h, w).
        golden: The frame with what it should give.
    """
    scale = max(golden.score, float(np.finfo(np.float32).tiny))
    return abs(score - golden.score) / scale, float(np.abs(anomaly_map - golden.map).max()) / scale


def _check(bundle: "Bundle", scorer: "AnyScorer", golden: "Golden") -> GoldenCheck:
    tolerance = bundle.manifest.golden.relative_tolerance
    try:
        (score,), (anomaly_map,) = scorer.batch([golden.frame])
    except FlawlineError as error:
        return GoldenCheck(expected=golden.score, tolerance=tolerance, passed=False, problem=str(error))
    relative_error, map_error = golden_errors(score, anomaly_map, golden)
    return GoldenCheck(
        expected=golden.score,
        tolerance=tolerance,
        passed=relative_error <= tolerance and map_error <= tolerance,
        score=score,
        relative_error=relative_error,
        map_relative_error=map_error,
    )
