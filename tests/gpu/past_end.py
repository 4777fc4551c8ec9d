"""Launches a kernel that writes past the end of an array: for compute-sanitizer to find."""

from pathlib import Path

import numpy as np
import pycuda.driver as cuda

from flawline.runtime.gpu.device import Device
from flawline.runtime.kernels.cuda.compiler import load_image


def main() -> None:
    """Writes to 32 floats past an array of 8."""
    device = Device()
    with device.current("past the end of an array"):
        image = load_image("past_end", device.arch, driver=device.driver.version, folder=Path(__file__).parent)
        module = cuda.module_from_buffer(image)
        values = cuda.mem_alloc(32)
        function = module.get_function("past_end")
        function(values, np.int32(8), block=(32, 1, 1), grid=(1, 1))
        cuda.Context.synchronize()
        values.free()


if __name__ == "__main__":
    main()
