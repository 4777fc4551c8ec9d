"""What the libraries that convert a network raise, each by types of its own, as an error that names the precision."""

from collections.abc import Iterator
from contextlib import contextmanager

from flawline.runtime.errors import FlawlineError, InputError
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
