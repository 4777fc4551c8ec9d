"""How much memory a calibration takes, said before it starts."""

from pathlib import Path

from flawline.runtime.errors import ResourceError
from flawline.runtime.kernels import packed_size

_WORKING_BYTES = 400 << 20


def calibration_bytes(gaussians: int, components: int, dimension: int, factor_bytes: int, sample_bytes: int) -> int:
    """Estimates the peak memory of a calibration.

    Args:
        gaussians: Gaussians G.
        components: Components K of each.
        dimension: Channels d of an embedding.
        factor_bytes: Bytes of one number of a factor, 2 or 4.
        sample_bytes: Bytes of the embeddings that are kept for mixtures or shrinkage.

    Returns:
        Bytes: the float64 scatter, its covariance, the packed factors, the sample and a constant for network and
        images.
    """
    scatter = gaussians * components * dimension * dimension * 8
    factors = gaussians * components * packed_size(dimension) * factor_bytes
    return 2 * scatter + factors + sample_bytes + _WORKING_BYTES


def available_bytes() -> int | None:
    """Memory that can still be taken: what the kernel says, or the control group's rest if that is less.

    Returns:
        Bytes, or None where the system does not say.
    """
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    group = Path("/sys/fs/cgroup")
    maximum, current = group / "memory.max", group / "memory.current"
    if maximum.exists() and current.exists() and (text := maximum.read_text().strip()) != "max":
        limits.append(int(text) - int(current.read_text()))
    return min(limits, default=None)


def require(needed_bytes: int, what: str, hint: str) -> None:
    """Refuses work that would not fit.

    Raises:
        ResourceError: Less memory is available than needed.
    """
    available = available_bytes()
    if available is not None and needed_bytes > available:
        raise ResourceError(
            f"{what} needs about {needed_bytes / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are available; {hint}"
        )
