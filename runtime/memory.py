"""How much memory there is, so that work that would not fit is refused before it starts."""

from pathlib import Path

from flawline.runtime.errors import ResourceError


def available_bytes() -> int | None:
    """Memory that this process can still take: what the kernel says, or the rest of the control group if that is less.

    Returns:
        Bytes, or None where the system does not say.
    """
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        limits.append(_fields(meminfo, ":")["MemAvailable"] * 1024)
    group = Path("/sys/fs/cgroup")
    maximum = group / "memory.max"
    if maximum.exists() and (text := maximum.read_text().strip()) != "max":
        # Page cache counts as used, but the kernel gives it back when asked.
        cache = _fields(group / "memory.stat", " ").get("inactive_file", 0)
        limits.append(int(text) - int((group / "memory.current").read_text()) + cache)
    return min(limits, default=None)


def require(needed_bytes: int, what: str, hint: str) -> None:
    """Refuses work that would not fit.

    Args:
        needed_bytes: What the work takes beyond what the process holds already.
        what: The work, as the subject of the message.
        hint: What to do.

    Raises:
        ResourceError: Less memory is available than needed.
    """
    available = available_bytes()
    if available is not None and needed_bytes > available:
        raise ResourceError(
            f"{what} needs about {needed_bytes / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are available; {hint}"
        )


def _fields(path: Path, separator: str) -> dict[str, int]:
    lines = (line.split(separator, 1) for line in path.read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in lines}
