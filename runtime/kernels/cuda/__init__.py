"""The kernels in CUDA C++, for NVIDIA GPUs."""
