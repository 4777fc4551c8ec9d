"""A case in a process of its own that stays warm and works only while it is asked to."""

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.peers.cases import Case
from flawline.benchmarks.peers.frames import Frames
from flawline.runtime.errors import FlawlineError

START_TIMEOUT_S = 300
TURN_TIMEOUT_S = 120
CLOSE_TIMEOUT_S = 10
_LOG_TAIL_BYTES = 4096
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class WorkerError(FlawlineError):
    """A case could not be opened, failed on a frame, or stopped answering."""


@dataclass(frozen=True)
class Turn:
    """What a worker did with some frames.

    Attributes:
        scores: float64 (n,).
        rejected: bool (n,), verdicts.
        taken_ns: int64 (n,), from frame in memory to verdict.
        cpu_ns: Processor time of all threads of the process, from the first frame until they have come to rest.
        peak_memory_bytes: VmHWM of the process so far.
    """

    scores: NDArray[np.float64]
    rejected: NDArray[np.bool_]
    taken_ns: NDArray[np.int64]
    cpu_ns: int
    peak_memory_bytes: int


class Worker:
    """A warm case; a context manager.

    Args:
        case: What to run.
        frames: What it may be asked to score.
        threads: Threads of every pool that the case uses.
        folder: Where it may write; also holds its log.

    Raises:
        WorkerError: The case does not open.
    """

    def __init__(self, case: Case, frames: Frames, *, threads: int, folder: Path) -> None:
        self.case = case
        self._log = folder / f"{case.name.replace(' ', '-')}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                case.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=process_environment(threads) | dict(case.environment),
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        task = {
            "frames": str(frames.raw),
            "height": frames.height,
            "width": frames.width,
            "threads": threads,
            "engine": case.engine,
            "precision": case.precision,
            "files": [str(path) for path in case.files],
        }
        try:
            self._ask(task, START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def score(self, indexes: Sequence[int], *, settle_s: float = 0.0) -> Turn:
        """Scores frames one after the other.

        Args:
            indexes: Which frames of the file.
            settle_s: How long to wait afterwards, so that spinning threads come to rest, s.

        Raises:
            WorkerError: A frame failed, or the worker died or answers nothing.
        """
        answer = self._ask({"frames": list(indexes), "settle_s": settle_s}, TURN_TIMEOUT_S)
        return Turn(
            np.array(answer["scores"], np.float64),
            np.array(answer["rejected"], bool),
            np.array(answer["taken_ns"], np.int64),
            int(answer["cpu_ns"]),
            int(answer["peak_memory_bytes"]),
        )

    def close(self) -> None:
        """Ends the process; closing again does nothing."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # Its own session: what it may have started ends with it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None or self._process.stdin.closed:
            raise WorkerError(f"{self.case.name}: the worker is closed")
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._death()) from None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise WorkerError(f"{self.case.name}: no answer within {timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._death())
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            raise WorkerError(f"{self.case.name}: answered {line[:80]!r}; expected a JSON object") from None
        if "error" in answer:
            raise WorkerError(f"{self.case.name}: {str(answer['error']).splitlines()[0]}")
        return dict(answer)

    def _death(self) -> str:
        try:
            status: int | str = self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = "unknown"
        return f"{self.case.name}: the process ended with status {status}: {last_line(self._log)}"


def process_environment(threads: int) -> dict[str, str]:
    """Variables of a process of the comparison: every pool that reads one has so many threads, and nobody phones home."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return (
        kept
        | dict.fromkeys(_POOLS, str(threads))
        | {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    )


def last_line(log: Path) -> str:
    """The last line that a process wrote to its log, or a word that there is none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it wrote nothing"
