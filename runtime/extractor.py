"""From frames to feature maps, the same way in calibration and on the line."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.backends import open_backend
from flawline.runtime.bundle.manifest import Input, Network
from flawline.runtime.errors import InputError
from flawline.runtime.images import SMALLEST_SIDE_PX, require_size
from flawline.runtime.resizing import resize_into


class FeatureExtractor:
    """Resizes frames straight into the network's input buffer and runs the network.

    Args:
        features: Bytes of the ONNX file.
        frame_input: What the network takes.
        network: What the network gives.
        channels: Channels d of each of its outputs.
        backend: Name of the engine.
        threads: Threads of the engine.
        batch: Frames that are run at once.
        open_size: Whether the graph may leave height and width open, as those for webs do.
        needed: Names of the outputs that are wanted, of those that `network` names; all if None.

    Attributes:
        backend_name: Name of the engine that runs.
        input: uint8, the network's input buffer in its own layout: (B, H, W, C) or (B, C, H, W).
        pixels: uint8 (B, H, W, C), what the network sees; a view of its input, whatever the layout of that.
        maps: float32 (B, d, h, w) per output that is wanted, in their order, overwritten by each `run`.
    """

    def __init__(
        self,
        features: bytes,
        frame_input: Input,
        network: Network,
        channels: Sequence[int],
        *,
        backend: str,
        threads: int = 1,
        batch: int = 1,
        open_size: bool = False,
        needed: Collection[str] | None = None,
    ) -> None:
        self._size = (frame_input.height, frame_input.width)
        self._channels = frame_input.channels
        planar = frame_input.layout == "nchw"
        self._interpolation = frame_input.interpolation
        self._backend = open_backend(
            backend,
            features,
            (batch, self._channels, *self._size) if planar else (batch, *self._size, self._channels),
            [
                (batch, depth, output.height, output.width)
                for depth, output in zip(channels, network.outputs, strict=True)
            ],
            threads=threads,
            precision=network.precision,
            open_size=open_size,
            needed=None
            if needed is None
            else [index for index, output in enumerate(network.outputs) if output.name in needed],
        )
        self.backend_name = self._backend.name
        self.maps = self._backend.outputs
        # Views made once: (H, W) for grey, (H, W, 3) for colour, as frames are.
        self.input = self._backend.input
        self.pixels = self.input.transpose(0, 2, 3, 1) if planar else self.input
        self._slots = [slot[..., 0] if self._channels == 1 else slot for slot in self.pixels]
        # A resize writes the channels of a pixel side by side; where the input has planes, by way of this.
        self._resized = np.empty(self._slots[0].shape, np.uint8) if planar and self._channels > 1 else None

    def load(self, slot: int, frame: npt.NDArray[np.uint8]) -> None:
        """Puts a frame into the input buffer.

        Args:
            slot: Which frame of the batch.
            frame: uint8 (height, width) or (height, width, channels), RGB.

        Raises:
            InputError: The frame is not of that form, or a side is shorter than `SMALLEST_SIDE_PX`.
        """
        target = self._slots[slot]
        frame = require_frame(frame, self._channels)
        if self._resized is None or frame.shape == target.shape:
            resize_into(frame, target, self._interpolation)
            return
        resize_into(frame, self._resized, self._interpolation)
        target[...] = self._resized

    def run(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Runs the network on the whole batch and returns `maps`."""
        self._backend.infer()
        return self.maps

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._backend.close()

    def __enter__(self) -> "FeatureExtractor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_frame(frame: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.uint8]:
    """A frame as it is worked on.

    Args:
        frame: uint8 (height, width) or (height, width, channels), RGB.
        channels: What the network takes: 1 or 3.

    Returns:
        uint8 (height, width) for one channel, (height, width, 3) for three.

    Raises:
        InputError: The frame is not of that form, or a side is shorter than `SMALLEST_SIDE_PX`.
    """
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    if frame.dtype != np.uint8 or frame.shape[2:] != (3,) * (channels == 3) or frame.ndim < 2 or not frame.size:
        expected = "(height, width)" if channels == 1 else "(height, width, 3)"
        raise InputError(f"frame is {frame.dtype} {frame.shape}; this bundle takes uint8 {expected}")
    require_size(frame, SMALLEST_SIDE_PX, "frame")
    return frame
