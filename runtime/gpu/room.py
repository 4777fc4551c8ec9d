"""Whether a detector fits the memory of a GPU, said before any of it is taken."""

from flawline.runtime.bundle.manifest import PadimManifest
from flawline.runtime.errors import ResourceError
from flawline.runtime.gpu.buffers import Counter
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.programs import usual_bytes
from flawline.runtime.kernels import Gaussians, packed_size, padded_rows
from flawline.runtime.kernels.cuda.calls import map_distances


def require_room(device: Device, manifest: PadimManifest, gaussians: Gaussians, batch: int) -> None:
    """Refuses a detector that does not fit. What the network's engine takes for itself is known to that engine alone.

    Only while the context of the GPU is current.

    Args:
        device: The GPU.
        manifest: Of the bundle.
        gaussians: Its statistics.
        batch: Most frames that are scored at once.

    Raises:
        ResourceError: It does not fit; the message names the dimension that would.
    """
    needed = needed_bytes(manifest, gaussians, batch)
    free, _ = device.memory_bytes()
    if needed <= free:
        return
    dimension = gaussians.dimension
    growing = _growing_bytes(manifest, gaussians, batch, dimension)
    fits = [d for d in range(1, dimension) if needed - growing + _growing_bytes(manifest, gaussians, batch, d) <= free]
    hint = f"fit with --dim {fits[-1]} or less" if fits else "no dimension fits: use a smaller batch, or --tie global"
    raise ResourceError(
        f"Gaussians of {dimension} dimensions and a batch of {batch} need {needed:,} bytes of GPU memory, and "
        f"{free:,} bytes are free on {device.name}; {hint}"
    )


def needed_bytes(manifest: PadimManifest, gaussians: Gaussians, batch: int) -> int:
    """Memory of the GPU that a detector takes, without its engine's own."""
    counter = Counter()
    map_distances(
        gaussians,
        [(output.height, output.width) for output in manifest.network.outputs],
        (manifest.map.height, manifest.map.width),
        batch,
        counter.upload,
        upsampling=manifest.map.upsampling,
    )
    frame_input = manifest.input
    counter.allocate(usual_bytes(frame_input, batch))
    counter.allocate(batch * frame_input.height * frame_input.width * frame_input.channels)
    for output in manifest.network.outputs:
        counter.allocate(4 * batch * gaussians.dimension * output.height * output.width)
    # Distances before and after smoothing.
    counter.allocate(4 * batch * manifest.positions)
    counter.allocate(4 * batch * manifest.positions)
    return counter.bytes


def _growing_bytes(manifest: PadimManifest, gaussians: Gaussians, batch: int, dimension: int) -> int:
    """What grows with the dimension: factors, means and feature maps."""
    counter = Counter()
    components = gaussians.count * gaussians.components
    rank = None if gaussians.rank is None else min(gaussians.rank, dimension)
    counter.allocate(components * packed_size(dimension, rank) * gaussians.factors.itemsize)
    if gaussians.row_scales is not None:
        counter.allocate(components * padded_rows(dimension, rank) * gaussians.row_scales.itemsize)
    counter.allocate(components * dimension * gaussians.means.itemsize)
    for output in manifest.network.outputs:
        counter.allocate(4 * batch * dimension * output.height * output.width)
    return counter.bytes
