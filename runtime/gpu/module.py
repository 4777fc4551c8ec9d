"""The kernels on a GPU: one module, loaded once, its functions launched with a struct by value."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import DeviceError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.device import Device, first_line
from flawline.runtime.gpu.stream import Stream
from flawline.runtime.kernels.cuda.compiler import KERNELS, load_image
from flawline.runtime.kernels.cuda.plan import Launch

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")


class Kernel:
    """A kernel with its layout.

    Args:
        function: Of a module.
        launch: Its layout.
        job: Its argument, read anew at every launch.
    """

    def __init__(self, function: Any, launch: Launch, job: npt.NDArray[np.void]) -> None:
        self.job = job
        self._function = function.prepare([job.dtype])
        self._launch = launch

    def free(self) -> None:
        """Lets go of the function and with it of the module: what holds this object, as a traceback may, does not then."""
        del self._function

    def enqueue(self, stream: Stream) -> None:
        """Launches it in the order of a stream."""
        launch = self._launch
        self._function.prepared_async_call(
            launch.grid, launch.block, stream.pycuda, self.job.tobytes(), shared_size=launch.shared_bytes
        )


class Kernels:
    """The module of all kernels. To be used only while the context of the GPU is current.

    Args:
        device: The GPU.

    Raises:
        DeviceError: The driver does not take the image of the kernels.
        MissingExtraError: There is no image for this GPU, and no compiler to make one.
        FlawlineError: See `load_image`.
    """

    def __init__(self, device: Device) -> None:
        image = load_image(KERNELS, device.arch, driver=device.driver.version)
        try:
            self._module = cuda.module_from_buffer(image)
        except (cuda.Error, UnicodeDecodeError) as error:
            if device.is_dead():
                raise DeviceError(f"the kernels cannot be loaded: {first_line(error)}") from error
            release = "{}.{}".format(*device.driver.version)
            raise DeviceError(
                f"the driver, which supports CUDA {release}, refuses the kernels for {device.name} ({first_line(error)}); "
                "update the driver, or install NVRTC of its release so that they are compiled here"
            ) from error

    def close(self) -> None:
        """Lets go of the module, which PyCUDA frees when its kernels are gone as well."""
        del self._module

    def kernel(self, name: str, launch: Launch, job: npt.NDArray[np.void]) -> Kernel:
        """A kernel by its name.

        Args:
            name: As in the sources.
            launch: Its layout.
            job: Its argument, a scalar of the dtype that it takes.

        Raises:
            DeviceError: The image has no kernel of that name.
        """
        try:
            return Kernel(self._module.get_function(name), launch, job)
        except cuda.Error as error:
            raise DeviceError(
                f"the image of the kernels lacks {name} ({first_line(error)}); reinstall flawline"
            ) from error
