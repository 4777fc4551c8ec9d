"""Mahalanobis distances over packed factors, from feature maps to anomaly maps and scores; and the error of reconstructions."""

from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.implementations import MOST_THREADS, implementations
from flawline.runtime.kernels.interpolation import Upsampling
from flawline.runtime.kernels.maps import embeddings, smooth
from flawline.runtime.kernels.packing import BLOCK_ROWS, pack, packed_size, padded_rows, unpack
from flawline.runtime.kernels.pse import ProximalErrorMap, proximally_sensitive_error
from flawline.runtime.kernels.quantisation import pack_int8, pad_row_scales, quantise
from flawline.runtime.kernels.roofline import read_bandwidth
from flawline.runtime.kernels.scoring import MahalanobisMap, mahalanobis

__all__ = [
    "BLOCK_ROWS",
    "MOST_THREADS",
    "Gaussians",
    "MahalanobisMap",
    "ProximalErrorMap",
    "Upsampling",
    "embeddings",
    "implementations",
    "mahalanobis",
    "pack",
    "pack_int8",
    "packed_size",
    "pad_row_scales",
    "padded_rows",
    "proximally_sensitive_error",
    "quantise",
    "read_bandwidth",
    "smooth",
    "unpack",
]
