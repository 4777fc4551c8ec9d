"""Mahalanobis distances over packed triangular factors, from feature maps to anomaly maps and scores."""

from flawline.runtime.kernels.gaussians import Gaussians
from flawline.runtime.kernels.implementations import MOST_THREADS, implementations
from flawline.runtime.kernels.interpolation import Upsampling
from flawline.runtime.kernels.maps import embeddings, smooth
from flawline.runtime.kernels.packing import BLOCK_ROWS, pack, packed_size, unpack
from flawline.runtime.kernels.roofline import read_bandwidth
from flawline.runtime.kernels.scoring import MahalanobisMap, mahalanobis

__all__ = [
    "BLOCK_ROWS",
    "MOST_THREADS",
    "Gaussians",
    "MahalanobisMap",
    "Upsampling",
    "embeddings",
    "implementations",
    "mahalanobis",
    "pack",
    "packed_size",
    "read_bandwidth",
    "smooth",
    "unpack",
]
