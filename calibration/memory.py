"""How much memory a calibration takes, estimated before it starts."""

import numpy as np
import numpy.typing as npt

from flawline.runtime.kernels import packed_size, padded_rows

_WORKING_BYTES = 150 << 20
# Covariance, its factor, its inverse for the reference, and one on the way.
_MATRICES = 4


def class_bytes(classes: int, dimension: int, factors: npt.DTypeLike) -> int:
    """Estimates the memory that the Gaussians of classes take: all in packed form, one at a time in float64.

    Args:
        classes: How many, K.
        dimension: Features d.
        factors: As for `calibration_bytes`.
    """
    dtype = np.dtype(factors)
    row_scales = padded_rows(dimension) * np.dtype(np.float16).itemsize if dtype == np.int8 else 0
    packed = packed_size(dimension) * dtype.itemsize + row_scales
    return classes * (packed + 4 * dimension) + _MATRICES * 8 * dimension * dimension


def calibration_bytes(
    *,
    gaussians: int,
    components: int,
    dimension: int,
    factors: npt.DTypeLike,
    sample_values: int,
    compared_values: int,
    network_bytes: int,
    batch_bytes: int,
) -> int:
    """Estimates the memory that a calibration takes beyond what the process holds after the export.

    Args:
        gaussians: Gaussians G.
        components: Components K of each.
        dimension: Channels d of an embedding.
        factors: float16, float32, or int8, which has an fp16 scale for each row.
        sample_values: Numbers in the embeddings that are kept for mixtures or shrinkage.
        compared_values: Numbers in the embeddings for which the packed factors are compared with the covariances.
        network_bytes: Size of the ONNX file.
        batch_bytes: Bytes of one batch of embeddings.

    Returns:
        Bytes.
    """
    scatter = gaussians * dimension * dimension * 8
    # A mixture's covariances come beside the scatter; a single Gaussian's takes its place.
    covariance = gaussians * components * dimension * dimension * 8 if components > 1 else 0
    dtype = np.dtype(factors)
    row_scales = padded_rows(dimension) * np.dtype(np.float16).itemsize if dtype == np.int8 else 0
    packed = gaussians * components * (packed_size(dimension) * dtype.itemsize + row_scales)
    # The sample is gone when the factors are compared.
    values = max(sample_values, compared_values) * 4
    # Held by the engine twice (the file and its packed weights), and by the reference in float64.
    network = 4 * network_bytes
    # Feature maps on the way through the network are of the order of what comes out.
    batches = 8 * batch_bytes
    return scatter + covariance + packed + values + network + batches + _WORKING_BYTES
