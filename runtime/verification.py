"""A device proves itself: the golden frames must score as they did where the bundle was made."""

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from flawline.runtime.detector import Detector


class GoldenCheck(msgspec.Struct, frozen=True):
    """How one golden frame scored.

    Attributes:
        score: On this machine.
        expected: Where the bundle was made.
        relative_error: Of the score.
        map_relative_error: Largest difference of the maps, relative to the largest value of the golden one.
        tolerance: What both may be.
        passed: Whether they are.
    """

    score: float
    expected: float
    relative_error: float
    map_relative_error: float
    tolerance: float
    passed: bool


def verify(detector: "Detector") -> list[GoldenCheck]:
    """Scores the golden frames of a detector's bundle.

    Args:
        detector: An open detector.

    Returns:
        One entry per golden frame.
    """
    tolerance = detector.bundle.manifest.golden.relative_tolerance
    checks = []
    for golden in detector.bundle.golden:
        result = detector(golden.frame)
        scale = max(golden.score, float(np.finfo(np.float32).tiny))
        error = abs(result.score - golden.score) / scale
        map_error = float(np.abs(result.map - golden.map).max()) / scale
        checks.append(
            GoldenCheck(
                score=result.score,
                expected=golden.score,
                relative_error=error,
                map_relative_error=map_error,
                tolerance=tolerance,
                passed=error <= tolerance and map_error <= tolerance,
            )
        )
    return checks
