"""What TensorRT says when it fails: it returns nothing and tells a logger why."""

import re
from typing import TYPE_CHECKING, Any

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import tensorrt
else:
    tensorrt = LazyModule("tensorrt", "pip install 'flawline[tensorrt]'; on a Jetson it comes with JetPack")

# Where in TensorRT's source a message comes from, at its end.
_ORIGIN = re.compile(r"\.?\s*In \w+ at \S+?(\)?)$")


def open_log() -> Any:
    """A logger that keeps errors and prints nothing. Whoever uses TensorRT with it must keep it as long.

    Returns:
        An `ILogger` whose `reason()` is the first error since it was last asked, in a line, or "no reason given".

    Raises:
        MissingExtraError: TensorRT is not installed.
    """

    class Log(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.INTERNAL_ERROR, tensorrt.ILogger.ERROR):
                self._errors.append(message)

        def reason(self) -> str:
            # The first: those that follow are of callers who gave up because of it.
            first = next(iter(self._errors), "no reason given")
            self._errors.clear()
            return one_line(first)

    return Log()


def one_line(message: str) -> str:
    """A message without line breaks and without its place in TensorRT's source."""
    return _ORIGIN.sub(r"\1", " ".join(message.split()))
