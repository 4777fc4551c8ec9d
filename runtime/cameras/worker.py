"""A thread that nobody has to wait for: what it reads from a device may never come."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Worker:
    """Does one job after the other; a daemon, so a job that never ends keeps no process alive.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], _Result]) -> "Future[_Result]":
        """Has a job done behind those before it."""
        future: Future[_Result] = Future()
        self._jobs.put((future, job))
        return future

    def close(self, timeout_s: float | None) -> None:
        """Ends the thread behind its last job.

        Args:
            timeout_s: Longest wait for that, seconds; None for as long as it takes.
        """
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            future, job = task
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001
                # For whoever waits for the result.
                future.set_exception(error)
            del task, future, job
