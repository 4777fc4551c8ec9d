"""The trial of an engine in a process of its own: its libraries stay out of this one, and its crash does not end this one.

The process is a copy of this one, made by fork: nothing is started, imported or verified again, and its memory is shared until
it changes. A copy holds the thread that forks and no other, so it is of use only where there is no other: what those hold,
such as locks, it would wait for in vain. Elsewhere a trial runs in this process. The copy ends with this process, and its
signals are not handled by what this program says, which does so itself.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from flawline.runtime import errors
from flawline.runtime.backends.selection import Trial
from flawline.runtime.errors import FlawlineError

_LONGEST_S = 600
"""Time that a trial may take; what has not scored a few frames then never will."""

_KINDS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FlawlineError)
}
_ANSWER_CAP_BYTES = 1 << 20
_SETTLING_S = 0.05
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2): the signal that a process gets when its parent ends."""


def run_apart(trial: Callable[[], Trial]) -> Trial:
    """Runs a trial in a child of this process where that can be had, else in this process.

    Args:
        trial: Opens an engine and runs it.

    Raises:
        FlawlineError: What the trial raises; also if the child crashes or takes longer than ten minutes.
        RuntimeError: The trial raised something else; the message holds its traceback.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        return trial()
    child: _Child | None = None
    received: bytes | None = None
    status: int | None = None
    try:
        with _signals_held() as mask:
            child = _fork(trial, mask)
        if child is not None and _is_alone():
            received = child.answer()
    finally:
        if child is not None:
            status = child.end(kill=received is None)
    return trial() if received is None else _outcome(received, status)


@contextlib.contextmanager
def _signals_held() -> Iterator[set[int]]:
    """Signals that come meanwhile are handled after; gives the mask of those that are held anyway."""
    mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}
    try:
        # Where a handler of an earlier signal may raise.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Child:
    """The process of a trial, which waits to be asked.

    Args:
        pid: Of the process.
        gate: Descriptor to be written to when it may begin.
        answers: Descriptor to read its answer from.
    """

    def __init__(self, pid: int, gate: int, answers: int) -> None:
        self._pid, self._gate, self._answers = pid, gate, answers
        self._handle: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._handle = os.pidfd_open(pid)

    def answer(self) -> bytes:
        """Lets the trial begin, and waits for what becomes of it."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"!")
        with os.fdopen(self._answers, "rb", closefd=False) as answers:
            return answers.read(_ANSWER_CAP_BYTES)

    def end(self, *, kill: bool) -> int | None:
        """Waits until the process has ended, whatever signals come.

        Returns:
            Its status, or None where this program takes care of its children otherwise.
        """
        with _signals_held():
            os.close(self._gate)
            os.close(self._answers)
            if kill:
                with contextlib.suppress(ProcessLookupError):
                    self._kill()
            status = None
            with contextlib.suppress(ChildProcessError):
                status = os.waitpid(self._pid, 0)[1]
            if self._handle is not None:
                os.close(self._handle)
            return status

    def _kill(self) -> None:
        if self._handle is None:
            os.kill(self._pid, signal.SIGKILL)
        else:
            # Its number may be another's by now.
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)


def _fork(trial: Callable[[], Trial], mask: set[int]) -> _Child | None:
    """Makes the process of a trial while signals are held; None where there are too few descriptors or processes."""
    parent, descriptors = os.getpid(), list[int]()
    try:
        for _ in ("gate", "answer"):
            descriptors.extend(os.pipe())
        with warnings.catch_warnings():
            # Of the threads that `_is_alone` looks for.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    begin, gate, answers, answer = descriptors
    if pid == 0:
        _work(trial, begin, answer, others=(gate, answers), parent=parent, mask=mask)
    os.close(begin)
    os.close(answer)
    return _Child(pid, gate, answers)


def _is_alone() -> bool:
    """Whether this process has one thread. BLAS ends its own before a fork, and they may take a moment to go."""
    until = time.monotonic() + _SETTLING_S
    while time.monotonic() < until:
        try:
            threads = len([*Path("/proc/self/task").iterdir()])
        except OSError:
            return False
        if threads == 1:
            return True
        time.sleep(0.001)
    return False


def _work(
    trial: Callable[[], Trial], begin: int, answer: int, *, others: tuple[int, int], parent: int, mask: set[int]
) -> NoReturn:
    """What the child does. It leaves without a word to the exit handlers and buffers, which are the parent's."""

    def work() -> Trial:
        _set_apart(parent, mask)
        for descriptor in others:
            os.close(descriptor)
        if not os.read(begin, 1):
            raise BrokenPipeError("this trial is not wanted")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        signal.alarm(_LONGEST_S)
        return trial()

    status = 1
    try:
        said, status = _answer(work)
        with os.fdopen(answer, "wb") as file:
            file.write(said)
    finally:
        os._exit(status)


def _set_apart(parent: int, mask: set[int]) -> None:
    """Makes this copy end with its parent, and leave to it what the program does about signals."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        raise ProcessLookupError(f"process {parent}, which made this one, has ended")
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _answer(trial: Callable[[], Trial]) -> tuple[bytes, int]:
    """What the child says, as JSON, and the status that it exits with."""
    try:
        return json.dumps({"trial": [float(number) for number in trial()]}).encode(), 0
    except FlawlineError as error:
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind in _KINDS.values())
        return json.dumps({"error": str(error), "kind": kind}).encode(), 0
    except BaseException:  # noqa: BLE001
        # The parent raises it.
        return json.dumps({"mistake": traceback.format_exc()}).encode(), 1


def _outcome(received: bytes, status: int | None) -> Trial:
    try:
        answer = json.loads(received)
    except ValueError:
        raise FlawlineError(f"its process {_ending(status)} before it had scored the golden frames") from None
    if "mistake" in answer:
        raise RuntimeError(f"the trial of an engine failed:\n{answer['mistake']}")
    if "error" in answer:
        raise _KINDS[answer["kind"]](answer["error"])
    return Trial(*answer["trial"])


def _ending(status: int | None) -> str:
    if status is None or not os.WIFSIGNALED(status):
        return "ended"
    number = os.WTERMSIG(status)
    if number == signal.SIGALRM:
        return f"had {_LONGEST_S} s, and was ended"
    return f"was ended by signal {number} ({signal.strsignal(number)})"
