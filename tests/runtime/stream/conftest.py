"""Stand-ins that exist only to provoke faults that no real part shows on demand."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.detector import Result
from flawline.runtime.regions import Region
from flawline.runtime.stream.pipeline import WARMUP_FRAMES
from tests.runtime.web_bundles import ListSink

WIDTH = 24
"""Of the web that is played; see `web`."""


class FakeDetector:
    """Rejects frames with a 255 in them; runs `fault(number)` before each frame, the first after the warm-up being 1.

    `frames` holds copies of what it was shown.
    """

    def __init__(self, fault: Callable[[int], object] = lambda number: None) -> None:
        self.fault = fault
        self.frames: list[np.ndarray] = []
        self.timings_ns = {"network": 1000}

    def __call__(self, frame: np.ndarray) -> Result:
        self.frames.append(frame.copy())
        self.fault(len(self.frames) - WARMUP_FRAMES)
        score = float(frame.max())
        regions = []
        if score == 255:
            y, x = np.argwhere(frame == 255)[0][:2]
            regions = [Region(int(x), int(y), 3, 2, 6, score, score)]
        return Result(
            score, 254.0, 0.5, frame[::4, ::4].reshape(*frame[::4, ::4].shape[:2], -1)[..., 0] * 1.0, regions, "none"
        )


class ScriptedSource:
    """Gives the reads of a script, then END; line n has the value n modulo 251 in every pixel."""

    def __init__(self, script: Iterable[BlockInfo | Exception], block_lines: int = 8) -> None:
        self.spec = "scripted"
        self.width = WIDTH
        self.channels = 1
        self.block_lines = block_lines
        self.line_rate = None
        self.counters = {"lines_sent": 0}
        self._script = iter(script)

    def open(self) -> None:
        pass

    def read(self, into: np.ndarray, timeout_s: float) -> BlockInfo:
        step = next(self._script, BlockInfo(Status.END))
        if isinstance(step, Exception):
            raise step
        if step.status in (Status.OK, Status.INCOMPLETE):
            into[: step.lines] = (np.arange(step.first_line, step.first_line + step.lines) % 251)[:, None]
        self.counters["lines_sent"] = max(self.counters["lines_sent"], step.first_line + step.lines)
        return step

    def close(self) -> None:
        pass


@pytest.fixture
def fake_detector() -> type[FakeDetector]:
    return FakeDetector


@pytest.fixture
def scripted_source() -> type[ScriptedSource]:
    return ScriptedSource


@pytest.fixture
def list_sink() -> ListSink:
    return ListSink()


@pytest.fixture(autouse=True)
def _threads(no_thread_is_left):
    pass
