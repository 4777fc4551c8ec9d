"""Which implementations of the kernels this machine can run."""

from flawline.runtime.errors import InputError

_AVAILABLE = ("reference",)


def implementations() -> tuple[str, ...]:
    """The implementations that run on this machine, the fastest first.

    Returns:
        Some of "avx512", "avx2", "neon", always "generic" (portable C++) and "reference" (NumPy, float64 inside).
    """
    return _AVAILABLE


def choose(implementation: str | None) -> str:
    """The implementation of that name, or the fastest one for None.

    Raises:
        InputError: This machine has no implementation of that name.
    """
    if implementation is None:
        return _AVAILABLE[0]
    if implementation not in _AVAILABLE:
        raise InputError(f"implementation: received {implementation!r}, expected one of {', '.join(_AVAILABLE)}")
    return implementation
