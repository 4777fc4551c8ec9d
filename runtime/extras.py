"""Optional and heavy libraries, imported at first use, with a clear error that names what to install."""

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from flawline.runtime.errors import MissingExtraError

# ONNX Runtime sends telemetry from Linux since 1.29; a device in a plant must not phone home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class LazyModule(ModuleType):
    """Stands for a library until one of its attributes is asked for, then imports it.

    Use it at the top of the one file that needs the library, so that type checkers see the real one::

        if TYPE_CHECKING:
            import cv2
        else:
            cv2 = LazyModule("cv2", "pip install opencv-python-headless")

    Args:
        name: Module to import.
        install: The command that installs it, named in the error.
        without: Modules that it shall find missing while it is imported.
    """

    def __init__(self, name: str, install: str, *, without: Sequence[str] = ()) -> None:
        super().__init__(name)
        self._install = install
        self._without = without

    def __getattr__(self, attribute: str) -> Any:
        try:
            with _missing(self._without):
                module = importlib.import_module(self.__name__)
        except ImportError as error:
            raise MissingExtraError(
                f"{self.__name__} cannot be imported ({error}); install it: {self._install}"
            ) from error
        value = getattr(module, attribute)
        setattr(self, attribute, value)
        return value


@contextmanager
def _missing(names: Sequence[str]) -> Iterator[None]:
    """Makes an import of these modules fail meanwhile, as if they were not installed; afterwards all is as before."""
    before = {name: module for name in names if (module := sys.modules.get(name)) is not None}
    # What the import system takes for a module that cannot be had; type checkers know only of modules here.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)
