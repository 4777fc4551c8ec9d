"""A GPU and its primary context, which is current in a thread only while that thread works with it."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flawline.runtime.errors import DeviceError, FlawlineError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.driver import Driver, DriverError, find_driver
from flawline.runtime.memory import available_bytes

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")

# What a wait may fail with on a GPU that goes on: out of memory, and what is said of captures.
_PASSING = {2, *range(900, 910)}
_RESTART = "it is lost to this process: end the process and start it again"

_contexts: dict[int, Any] = {}
_lost: set[int] = set()
_lock = threading.Lock()


class Device:
    """A GPU.

    Its primary context is the one that TensorRT and torch use as well. It is kept until the process ends. After some errors, as
    a bad address in a kernel, it is dead for good, and the process gets no other: the GPU is lost to it.

    Args:
        number: Which GPU.

    Attributes:
        driver: What drives it.
        name: Its name.
        arch: Its compute capability.
        multiprocessors: How many it has.
        total_bytes: All of its memory.
        integrated: Whether it shares the memory of the host, as that of a Jetson does.

    Raises:
        MissingExtraError: There is no driver, or PyCUDA is not installed.
        DeviceError: The driver is too old, has no GPU of that number, or that GPU is lost.
    """

    def __init__(self, number: int = 0) -> None:
        # First: without a driver, importing PyCUDA fails on a symbol or a library, which says nothing to anybody.
        self.driver: Driver = find_driver()
        self._number = number
        self.require()
        with _told("the GPU cannot be opened"):
            cuda.init()
            device = cuda.Device(number)
            self.name: str = device.name()
            self.arch: tuple[int, int] = device.compute_capability()
            self.multiprocessors: int = device.get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT)
            self.total_bytes: int = device.total_memory()
            self.integrated = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
            self._context = _retain(number, device)

    @property
    def lost(self) -> bool:
        """Whether nothing can be done with it any more."""
        return self._number in _lost

    def require(self) -> None:
        """Refuses to go on with a GPU that is lost.

        Raises:
            DeviceError: It is.
        """
        if self.lost:
            raise DeviceError(f"GPU {self._number} has failed; {_RESTART}")

    @contextmanager
    def current(self, doing: str) -> Iterator[None]:
        """Makes the context current in this thread for as long as the block runs.

        Args:
            doing: What the block does, for the error: "the GPU failed DOING", as "on a frame".

        Raises:
            DeviceError: The GPU refused something, or is lost.
        """
        self.require()
        try:
            with _told(f"the GPU failed {doing}"):
                self._push()
                try:
                    yield
                except BaseException as error:
                    if isinstance(error, Exception):
                        self.is_dead()
                    with suppress(cuda.Error):  # what ended the block says more
                        self._pop()
                    raise
                self._pop()
        except FlawlineError as error:
            if self.lost:
                raise DeviceError(f"{error}; {_RESTART}") from error
            raise

    def is_dead(self) -> bool:
        """Finds out whether it is lost, after an error. Only while the context is current.

        A context that is dead says so to whoever waits for it.
        """
        try:
            self.driver.call("cuCtxSynchronize")
        except DriverError as error:
            if error.code not in _PASSING:
                _lost.add(self._number)
        return self.lost

    def memory_bytes(self) -> tuple[int, int]:
        """Memory that is free, and all memory. Only while the context is current."""
        free, total = cuda.mem_get_info()
        if self.integrated:
            # What the host keeps of files counts as taken there, though it gives it up when asked.
            free = max(free, available_bytes() or 0)
        return free, total

    def _push(self) -> None:
        try:
            self._context.push()
        except cuda.Error:
            _lost.add(self._number)
            raise

    def _pop(self) -> None:
        try:
            cuda.Context.pop()
        except cuda.Error:
            # A lost GPU does not even do that. PyCUDA must forget the context all the same: with one that is current
            # it ends the process when the thread ends.
            _lost.add(self._number)
            self._context.detach()
            raise


def abandon(*held: object) -> None:
    """Keeps objects, with all that they hold, until the process ends.

    For what a lost GPU would not free: PyCUDA would complain of each piece on standard error. And for what others never let go of.
    """
    for one in held:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    # The driver's log is in whatever bytes it holds, and an error with those that are no UTF-8 cannot be made.
    text = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns an error of the driver or of PyCUDA into one of ours."""
    try:
        yield
    except (cuda.Error, DriverError) as error:
        raise DeviceError(f"{what}: {first_line(error)}") from error


def _retain(number: int, device: Any) -> Any:
    with _lock:
        if number not in _contexts:
            _contexts[number] = device.retain_primary_context()
            # PyCUDA would give it back by a function that is not for primary contexts, and complain, as the process ends.
            abandon(_contexts[number])
        return _contexts[number]
