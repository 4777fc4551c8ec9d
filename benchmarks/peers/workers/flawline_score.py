"""Scores frames with Flawline's own detector, under the same protocol as the peers; runs in Flawline's interpreter."""

import sys

from flawline.runtime import Detector

from .serving import Frame, Score, Task, serve


def open_scorer(task: Task) -> Score:
    """Opens the bundle as any user does."""
    detector = Detector.open(
        task["files"][0], precision=task["precision"], backend=task["engine"], threads=task["threads"]
    )

    grey = detector.bundle.manifest.input.channels == 1

    def score(frame: Frame) -> tuple[float, bool]:
        result = detector(frame[..., 0] if grey else frame)
        return result.score, result.verdict == "reject"

    return score


if __name__ == "__main__":
    sys.exit(serve(open_scorer))
