"""How much memory a calibration takes, estimated before it starts."""

from flawline.runtime.kernels import packed_size

_WORKING_BYTES = 150 << 20


def calibration_bytes(
    *,
    gaussians: int,
    components: int,
    dimension: int,
    factor_bytes: int,
    sample_values: int,
    network_bytes: int,
    batch_bytes: int,
) -> int:
    """Estimates the memory that a calibration takes beyond what the process holds after the export.

    Args:
        gaussians: Gaussians G.
        components: Components K of each.
        dimension: Channels d of an embedding.
        factor_bytes: Bytes of one number of a factor, 2 or 4.
        sample_values: Numbers in the embeddings that are kept for mixtures or shrinkage.
        network_bytes: Size of the ONNX file.
        batch_bytes: Bytes of one batch of embeddings.

    Returns:
        Bytes.
    """
    scatter = gaussians * dimension * dimension * 8
    # A mixture's covariances come beside the scatter; a single Gaussian's takes its place.
    covariance = gaussians * components * dimension * dimension * 8 if components > 1 else 0
    factors = gaussians * components * packed_size(dimension) * factor_bytes
    # Held by the engine twice (the file and its packed weights), and by the reference in float64.
    network = 4 * network_bytes
    # Feature maps on the way through the network are of the order of what comes out.
    batches = 8 * batch_bytes
    return scatter + covariance + factors + sample_values * 4 + network + batches + _WORKING_BYTES
