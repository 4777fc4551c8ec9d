import threading

import numpy as np
import pytest

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.ring import Ring


class Script:
    """Gives the reads of a script, then END."""

    def __init__(self, infos: list[BlockInfo]) -> None:
        self._infos = iter(infos)

    def read(self, into: np.ndarray, timeout_s: float) -> BlockInfo:
        return next(self._infos, BlockInfo(Status.END))


def acquire(infos: list[BlockInfo]) -> Acquisition:
    acquisition = Acquisition(Script(infos), Ring(1000, (10, 16), "block"), threading.Event())
    acquisition.run()
    return acquisition


def test_rate_that_was_held_is_that_of_the_lines_that_came():
    infos = []
    for number in range(100):
        line, time_ns = 100 * number, number * 10_000_000
        infos.append(BlockInfo(Status.OK, line, 10, arrival_time_ns=time_ns))
        infos.append(BlockInfo(Status.LOST, line + 10, 90, arrival_time_ns=time_ns, reason="missing_frames"))
    acquisition = acquire(infos)
    assert acquisition.lines_sent == 10_000
    assert acquisition.line_rate == pytest.approx(1000)


def test_one_block_has_no_rate():
    assert acquire([BlockInfo(Status.OK, 0, 10, arrival_time_ns=5)]).line_rate is None
