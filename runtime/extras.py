"""Optional and heavy libraries, imported at first use, with a clear error that names what to install."""

import importlib
import os
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
    """

    def __init__(self, name: str, install: str) -> None:
        super().__init__(name)
        self._install = install

    def __getattr__(self, attribute: str) -> Any:
        try:
            module = importlib.import_module(self.__name__)
        except ImportError as error:
            raise MissingExtraError(
                f"{self.__name__} cannot be imported ({error}); install it: {self._install}"
            ) from error
        value = getattr(module, attribute)
        setattr(self, attribute, value)
        return value
