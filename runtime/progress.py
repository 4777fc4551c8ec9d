"""Progress of long work, on standard error: a bar where someone watches, now and then a line elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import tqdm
else:
    tqdm = LazyModule("tqdm", "pip install tqdm")

T = TypeVar("T")

_SECONDS_PER_LINE = 10.0


def progress(items: Iterable[T], *, total: int | None = None, label: str, unit: str = "image") -> Iterator[T]:
    """Passes items on and draws a bar on standard error, or writes a line to it every ten seconds if it is no terminal.

    Args:
        items: What is worked on.
        total: How many there are; `len(items)` if None and it has one.
        label: What is done, in a word or two.
        unit: What an item is called.
    """
    if sys.stderr.isatty():
        yield from tqdm.tqdm(items, total=total, desc=label, unit=unit, leave=False)
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    whole = "" if total is None else f" of {total}"
    due = time.monotonic() + _SECONDS_PER_LINE
    for done, item in enumerate(items):
        if time.monotonic() >= due:
            sys.stderr.write(f"{label}: {unit} {done}{whole}\n")
            sys.stderr.flush()
            due = time.monotonic() + _SECONDS_PER_LINE
        yield item
