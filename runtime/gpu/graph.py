"""What PyCUDA lacks of the driver: CUDA graphs, and events that take their time inside one."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flawline.runtime.gpu.driver import Driver, DriverError
from flawline.runtime.gpu.stream import Stream

# Only the capturing thread must leave other work alone: cameras have threads of their own.
_THREAD_LOCAL = 1
# Makes an event that is recorded during a capture a node of the graph.
_EXTERNAL = 1


class Graph:
    """Work of a stream, captured once and launched as a whole.

    Args:
        driver: The driver.
        stream: Where the work goes.
        enqueue: Puts the work into the stream; nothing of it runs.

    Raises:
        DriverError: The driver does not capture this work. The stream is as before.
    """

    def __init__(self, driver: Driver, stream: Stream, enqueue: Callable[[], None]) -> None:
        self._driver = driver
        self._stream = ctypes.c_void_p(stream.handle)
        self._executable = ctypes.c_void_p()
        with _uncollected():
            captured = self._capture(enqueue)
        try:
            driver.call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), captured, ctypes.c_ulonglong(0))
        finally:
            driver.call("cuGraphDestroy", captured)

    def launch(self) -> None:
        """Puts all of the work into the stream."""
        self._driver.call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Frees the graph. Nothing of it may still run."""
        self._driver.call("cuGraphExecDestroy", self._executable)

    def _capture(self, enqueue: Callable[[], None]) -> ctypes.c_void_p:
        captured = ctypes.c_void_p()
        self._driver.call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            self._end(captured)
            raise
        self._driver.call("cuStreamEndCapture", self._stream, ctypes.byref(captured))
        return captured

    def _end(self, captured: ctypes.c_void_p) -> None:
        """Leaves a capture that has failed already: a stream that is captured takes no other work."""
        try:
            self._driver.call("cuStreamEndCapture", self._stream, ctypes.byref(captured))
        except DriverError:
            return
        self._driver.call("cuGraphDestroy", captured)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Has garbage collected before the block and not in it: what objects of PyCUDA do as they go would end a capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Events:
    """Times of points in a stream.

    Args:
        driver: The driver.
        stream: Whose.
        count: Points.
    """

    def __init__(self, driver: Driver, stream: Stream, count: int) -> None:
        self._driver = driver
        self._stream = ctypes.c_void_p(stream.handle)
        self._events = [ctypes.c_void_p() for _ in range(count)]
        for event in self._events:
            driver.call("cuEventCreate", ctypes.byref(event), 0)

    def record(self, index: int, *, captured: bool = False) -> None:
        """Notes when the stream gets here.

        Args:
            index: Which point.
            captured: Whether the stream is being captured.
        """
        flags = _EXTERNAL if captured else 0
        self._driver.call("cuEventRecordWithFlags", self._events[index], self._stream, flags)

    def elapsed_ns(self) -> list[int]:
        """Nanoseconds from each point to the next, once the stream has come to rest."""
        elapsed = ctypes.c_float()
        times_ns = []
        for start, end in zip(self._events, self._events[1:], strict=False):
            self._driver.call("cuEventElapsedTime", ctypes.byref(elapsed), start, end)
            times_ns.append(round(elapsed.value * 1e6))
        return times_ns

    def close(self) -> None:
        """Frees the events."""
        while self._events:
            self._driver.call("cuEventDestroy_v2", self._events.pop())
