"""What every engine that runs a network on a GPU offers."""

from typing import Protocol


class GpuEngine(Protocol):
    """A loaded network that reads and writes device memory of its owner.

    Addresses are handed in at construction, and memory behind them is contiguous. The engine works on whole batches.

    Attributes:
        name: Name of the engine.
        input: Device address of uint8 (B, H, W, C) or (B, C, H, W), filled on the same stream before `enqueue`.
        outputs: Device addresses of float32 (B, d, h, w) for each output, in the order of the manifest.
        capturable: Whether `enqueue` may be captured into a CUDA graph.
    """

    name: str
    input: int
    outputs: tuple[int, ...]
    capturable: bool

    def enqueue(self, stream: int) -> None:
        """Launches the network on a CUDA stream and returns at once; allocates nothing.

        Args:
            stream: Handle of the stream.

        Raises:
            FlawlineError: The engine failed or is closed.
        """

    def close(self) -> None:
        """Frees the engine; closing again does nothing. Nothing that it launched may still run."""
