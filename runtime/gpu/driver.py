"""The driver of NVIDIA GPUs, for what must be known before PyCUDA is imported, and for what PyCUDA does not offer."""

import ctypes
import functools

from flawline.runtime.errors import DeviceError, MissingExtraError

LIBRARY = "libcuda.so.1"

OLDEST = (11, 4)
"""The first release of CUDA whose graphs are as they are used here; that of JetPack 5."""

_STUB = 34


class DriverError(DeviceError):
    """A call of the driver failed.

    Attributes:
        code: What it returned.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Driver:
    """A driver that works and has a GPU.

    Args:
        library: The loaded library.

    Attributes:
        version: The release of CUDA that it supports.

    Raises:
        DeviceError: It is too old, or finds no GPU.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        number = ctypes.c_int()
        self._begin("cuDriverGetVersion", ctypes.byref(number))
        self.version = (number.value // 1000, number.value % 1000 // 10)
        if self.version < OLDEST:
            raise DeviceError(
                "the NVIDIA driver supports CUDA {}.{}; expected {}.{} or newer: update the driver".format(
                    *self.version, *OLDEST
                )
            )
        self._begin("cuInit", 0)

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function of the driver.

        Args:
            name: Of the function, with its version where it has one.
            arguments: As ctypes takes them; handles and addresses as `ctypes.c_void_p`.

        Raises:
            DriverError: It failed.
        """
        code = getattr(self._library, name)(*arguments)
        if code:
            raise DriverError(f"{name}: {self._text(code)}", code)

    def _begin(self, name: str, *arguments: object) -> None:
        try:
            self.call(name, *arguments)
        except DriverError as error:
            if error.code == _STUB:
                # It knows no text of any error either.
                raise DeviceError(
                    f"{LIBRARY} is the stub that CUDA programs are linked with; expected the NVIDIA driver: take the "
                    "folder of stubs out of LD_LIBRARY_PATH, or give the container its GPU"
                ) from error
            raise DeviceError(f"the NVIDIA driver finds no GPU that works: {error}") from error

    def _text(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(code, ctypes.byref(text))
        return text.value.decode() if text.value else f"error {code}"


@functools.cache
def find_driver() -> Driver:
    """Loads the driver.

    Raises:
        MissingExtraError: There is none on this machine.
        DeviceError: It is too old, or finds no GPU.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise MissingExtraError(
            f"no NVIDIA driver: {error}; expected a machine with an NVIDIA GPU and its driver"
        ) from error
    return Driver(library)
