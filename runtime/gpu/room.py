"""Whether a detector fits the memory of a GPU, said before any of it is taken."""

from flawline.runtime.errors import ResourceError
from flawline.runtime.gpu.buffers import Counter
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.programs import usual_bytes
from flawline.runtime.gpu.scoring import Addresses, Scoring, output_bytes


def require_room(device: Device, scoring: Scoring, batch: int) -> None:
    """Refuses a detector that does not fit. What the network's engine takes for itself is known to that engine alone.

    Only while the context of the GPU is current.

    Args:
        device: The GPU.
        scoring: The kernels of the detector.
        batch: Most frames that are scored at once.

    Raises:
        ResourceError: It does not fit; the message says what would.
    """
    needed = needed_bytes(scoring, batch)
    free, _ = device.memory_bytes()
    if needed > free:
        raise ResourceError(
            f"{scoring.subject} and a batch of {batch} need {needed:,} bytes of GPU memory, and {free:,} bytes are free "
            f"on {device.name}; {scoring.remedy(needed - free, batch)}"
        )


def needed_bytes(scoring: Scoring, batch: int) -> int:
    """Memory of the GPU that a detector takes, without its engine's own.

    Args:
        scoring: The kernels of the detector.
        batch: Most frames that are scored at once.
    """
    counter, manifest = Counter(), scoring.manifest
    frame_input = manifest.input
    counter.allocate(usual_bytes(frame_input, batch))
    counter.allocate(batch * frame_input.height * frame_input.width * frame_input.channels)
    outputs = tuple(counter.allocate(size_bytes) for size_bytes in output_bytes(manifest, batch))
    maps, scores = counter.allocate(4 * batch * manifest.positions), counter.allocate(4 * batch)
    scoring.prepare(counter, Addresses(0, outputs, maps, scores), batch)
    return counter.bytes
