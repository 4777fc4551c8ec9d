"""Measurements on an NVIDIA GPU: kernels against the fastest read of the same bytes, and whole frames."""
