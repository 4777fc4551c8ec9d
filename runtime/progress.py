"""Progress of long work, on standard error and only where someone watches."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import tqdm
else:
    tqdm = LazyModule("tqdm", "pip install tqdm")

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int | None = None, label: str, unit: str = "image") -> Iterator[T]:
    """Passes items on and draws a bar on standard error if that is a terminal.

    Args:
        items: What is worked on.
        total: How many there are; `len(items)` if None and it has one.
        label: What is done, in a word or two.
        unit: What an item is called.
    """
    yield from tqdm.tqdm(items, total=total, desc=label, unit=unit, disable=None, leave=False)
