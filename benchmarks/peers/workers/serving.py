"""One warm case of the comparison: scores frames when it is told to, and says what each took. Imports no flawline.

Standard input and output carry one JSON object per line. The first line in is the task; the answer is `{"ready": ...}`
or `{"error": ...}`. Each further line in names frames; the answer has score, verdict and time of each, and the
processor time of all of them. End of input ends the process. What libraries print goes to standard error.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Score = Callable[[Frame], tuple[float, bool]]
Task = Mapping[str, Any]


def serve(open_scorer: Callable[[Task], Score]) -> int:
    """Answers until the input ends.

    Args:
        open_scorer: Makes, from the task, what takes a frame, uint8 (height, width, 3) RGB, to its score and to whether
            it is rejected. The task names `frames` (file of raw frames), `height`, `width`, `threads`, and what
            `open_scorer` itself needs.

    Returns:
        The exit status.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        task = json.loads(sys.stdin.readline())
        try:
            score = open_scorer(task)
        except Exception as error:  # noqa: BLE001 - another project's code: whatever it raises is the reason to report
            _reply(replies, {"error": f"{type(error).__name__}: {error}"})
            return 1
        _reply(replies, {"ready": True})
        with Path(task["frames"]).open("rb") as file:
            for line in sys.stdin:
                _reply(replies, _turn(json.loads(line), task, file, score))
    return 0


def _turn(request: Task, task: Task, file: Any, score: Score) -> dict[str, Any]:
    shape = (task["height"], task["width"], 3)
    size = shape[0] * shape[1] * shape[2]
    frames = []
    for index in request["frames"]:
        file.seek(index * size)
        frames.append(np.frombuffer(file.read(size), np.uint8).reshape(shape))
    scores, rejected, taken_ns = [], [], []
    cpu_ns = time.process_time_ns()
    try:
        for frame in frames:
            start = time.perf_counter_ns()
            value, reject = score(frame)
            taken_ns.append(time.perf_counter_ns() - start)
            scores.append(float(value))
            rejected.append(bool(reject))
    except Exception as error:  # noqa: BLE001 - as above
        return {"error": f"{type(error).__name__}: {error}"}
    # Threads that spin after their work belong to it, and must have come to rest before another case runs.
    time.sleep(request["settle_s"])
    cpu_ns = time.process_time_ns() - cpu_ns
    return {
        "scores": scores,
        "rejected": rejected,
        "taken_ns": taken_ns,
        "cpu_ns": cpu_ns,
        "peak_memory_bytes": _peak_memory_bytes(),
    }


def _reply(replies: Any, message: Mapping[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _peak_memory_bytes() -> int:
    with Path("/proc/self/status").open(encoding="ascii") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
