"""What each kind of detector has on a GPU behind its network: the kernels that make maps and scores of what that gives."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from flawline.runtime.bundle.manifest import AnyManifest
from flawline.runtime.gpu.buffers import Memory
from flawline.runtime.kernels.cuda.calls import Call

_FLOAT_BYTES = 4


class Addresses(NamedTuple):
    """Where on the GPU a detector finds and leaves what it has of B frames.

    Attributes:
        image: uint8 (B, H, W, C) or (B, C, H, W), the network's input.
        outputs: float32 (B, d, h, w) for each output of the network.
        maps: float32 (B, h, w), to be written.
        scores: float32 (B,), to be written; zero before the first kernel runs.
    """

    image: int
    outputs: tuple[int, ...]
    maps: int
    scores: int


Calls = Callable[[int], tuple[Call, ...]]
"""Gives the launches, in their order, that make maps and scores of the first frames of a batch."""


class Scoring(Protocol):
    """The kernels behind the network of one detector."""

    @property
    def manifest(self) -> AnyManifest:
        """Of the bundle."""

    @property
    def subject(self) -> str:
        """What takes the memory, as a plural."""

    def prepare(self, memory: Memory, addresses: Addresses, batch: int) -> Calls:
        """Takes what the kernels need besides.

        Args:
            memory: Where it is taken from.
            addresses: Of what they work on.
            batch: Most frames at once.

        Raises:
            ResourceError: There is not enough memory.
        """

    def remedy(self, missing_bytes: int, batch: int) -> str:
        """What would help where that many bytes are missing for a batch."""


def output_bytes(manifest: AnyManifest, batch: int) -> Iterator[int]:
    """Memory of each output of the network, for as many frames."""
    for channels, output in zip(manifest.output_channels, manifest.network.outputs, strict=True):
        yield _FLOAT_BYTES * batch * channels * output.height * output.width
