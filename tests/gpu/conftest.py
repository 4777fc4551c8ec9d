from tests.runtime.gpu.conftest import kernels_image, loaded_standin, standin, standin_library

__all__ = ["kernels_image", "loaded_standin", "standin", "standin_library"]
