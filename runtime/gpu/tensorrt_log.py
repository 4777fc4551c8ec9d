"""What TensorRT says when it fails: it returns nothing and tells a logger why."""

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flawline.runtime.errors import DeviceError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.device import abandon

if TYPE_CHECKING:
    import tensorrt
else:
    tensorrt = LazyModule("tensorrt", "pip install 'flawline[tensorrt]'; on a Jetson it comes with JetPack")

# Where in TensorRT's source a message comes from, at its end.
_ORIGIN = re.compile(r"\.?\s*In \w+ at \S+?(\)?)$")


_making = threading.Lock()


def open_log() -> Any:
    """The logger of this process, which keeps errors and prints nothing.

    TensorRT calls the first that it was given for as long as the process lives, whatever it is given later. So there is one,
    and it is never freed.

    Returns:
        An `ILogger` whose `reason()` is the first error in this thread since it last asked or opened the log, in a line, or
        "no reason given".

    Raises:
        MissingExtraError: TensorRT is not installed.
    """
    with _making:
        log = _log()
    log.reason()  # of what went well all the same
    return log


@functools.cache
def _log() -> Any:
    class Log(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._errors = threading.local()

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.INTERNAL_ERROR, tensorrt.ILogger.ERROR):
                # The first: those that follow are of callers who gave up because of it.
                self._errors.__dict__.setdefault("first", message)

        def reason(self) -> str:
            return one_line(self._errors.__dict__.pop("first", "no reason given"))

    log = Log()
    abandon(log)
    return log


@contextmanager
def starting(log: Any) -> Iterator[None]:
    """For the first call of TensorRT in a block, which fails where it cannot work with the driver or the GPU at all.

    Args:
        log: What `open_log` gave, and what the call is given.

    Raises:
        DeviceError: It failed.
    """
    try:
        yield
    except TypeError as error:  # of pybind11, for a constructor that was given nothing
        raise DeviceError(
            f"TensorRT {tensorrt.__version__} does not start here: {log.reason()}; expected a driver and a GPU that this "
            "version supports"
        ) from error


def one_line(message: str) -> str:
    """A message without line breaks and without its place in TensorRT's source."""
    return _ORIGIN.sub(r"\1", " ".join(message.split()))
