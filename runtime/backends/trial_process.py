"""The trial of an engine in a process of its own: its libraries stay out of this one, and its crash does not end this one.

The process is a copy of this one, made by fork: nothing is started, imported or verified again, and its memory is shared until
it changes. A copy holds the thread that forks and no other, so it is of use only where there is no other: what those hold,
such as locks, it would wait for in vain. Elsewhere a trial runs in this process.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
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
    gate, answer = os.pipe(), os.pipe()
    try:
        with warnings.catch_warnings():
            # Of the threads that `_is_alone` looks for.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    except OSError:
        for descriptor in (*gate, *answer):
            os.close(descriptor)
        return trial()
    if child == 0:
        _work(trial, gate, answer)
    os.close(gate[0])
    os.close(answer[1])
    try:
        with os.fdopen(answer[0], "rb") as answers, os.fdopen(gate[1], "wb", buffering=0) as opener:
            is_alone = _is_alone()
            with contextlib.suppress(BrokenPipeError):
                opener.write(b"!" * is_alone)
            opener.close()
            received = answers.read(_ANSWER_CAP_BYTES)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = _wait(child)
    return _outcome(received, status) if is_alone else trial()


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


def _work(trial: Callable[[], Trial], gate: tuple[int, int], answer: tuple[int, int]) -> NoReturn:
    """What the child does. It leaves without a word to the exit handlers and buffers, which are the parent's."""
    try:
        os.close(gate[1])
        os.close(answer[0])
        if os.read(gate[0], 1):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
            signal.alarm(_LONGEST_S)
            with os.fdopen(answer[1], "wb") as file:
                file.write(json.dumps(_answer(trial)).encode())
    finally:
        os._exit(0)


def _answer(trial: Callable[[], Trial]) -> dict[str, object]:
    try:
        return {"trial": trial()}
    except FlawlineError as error:
        return {
            "error": str(error),
            "kind": next(kind.__name__ for kind in type(error).__mro__ if kind in _KINDS.values()),
        }
    except Exception:  # noqa: BLE001
        # The parent raises it.
        return {"mistake": traceback.format_exc()}


def _wait(child: int) -> int | None:
    """Status of a child that has ended, or None where this program takes care of its children otherwise."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(child, 0)[1]
    return None


def _outcome(received: bytes, status: int | None) -> Trial:
    try:
        answer = json.loads(received)
    except ValueError:
        raise FlawlineError(f"its process {_ending(status)} before it had scored the golden frames") from None
    if "mistake" in answer:
        raise RuntimeError(f"the trial of an engine failed:\n{answer['mistake']}")
    if "error" in answer:
        raise _KINDS[answer["kind"]](answer["error"])
    return Trial(*map(float, answer["trial"]))


def _ending(status: int | None) -> str:
    if status is None or not os.WIFSIGNALED(status):
        return "ended"
    number = os.WTERMSIG(status)
    if number == signal.SIGALRM:
        return f"had {_LONGEST_S} s, and was ended"
    return f"was ended by signal {number} ({signal.strsignal(number)})"
