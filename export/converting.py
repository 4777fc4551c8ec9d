"""What the libraries that convert a network or run it raise, as an error that names the precision or the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flawline.runtime.errors import EngineError, FlawlineError, InputError
from flawline.runtime.precisions import Precision


@contextmanager
def converting(precision: Precision, tool: str) -> Iterator[None]:
    """Surrounds a call of a library.

    Args:
        precision: That the network is converted to.
        tool: What messages call the library.

    Raises:
        InputError: The library raised anything but what this project or a lack of memory does.
    """
    try:
        yield
    except (FlawlineError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join([type(error).__name__, *str(error).split()])
        raise InputError(f"{tool} fails on the network in {precision}: {reason}; choose another precision") from error


@contextmanager
def running(origin: str | Path) -> Iterator[None]:
    """Surrounds work in which an engine runs a network on images, and names the network if the engine fails.

    Args:
        origin: What messages call the network: its name or file, or its bundle.

    Raises:
        FlawlineError: What the engine raised, with the name in front. Errors of other kinds say themselves what is at fault.
    """
    try:
        yield
    except FlawlineError as error:
        # What an engine raises while it runs is of no narrower kind.
        if type(error) not in (FlawlineError, EngineError):
            raise
        raise type(error)(f"{origin}: {error}") from error
