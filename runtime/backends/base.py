"""What every engine that runs the feature graph offers."""

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Backend(Protocol):
    """A loaded feature graph with its buffers, allocated once.

    Attributes:
        name: Name of the engine.
        input: uint8 (B, H, W, C) or (B, C, H, W), filled by the caller before `infer`.
        outputs: float32 (B, d, h, w) per scale, finest first, overwritten by `infer`.
    """

    name: str
    input: npt.NDArray[np.uint8]
    outputs: tuple[npt.NDArray[np.float32], ...]

    def infer(self) -> None:
        """Runs the graph on the whole input buffer.

        Raises:
            FlawlineError: The engine failed or is closed.
        """

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
