"""Frames to anomaly maps and scores by reconstruction: what a frame has that its reconstruction lacks."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle.manifest import ReconstructionManifest
from flawline.runtime.frame_scorer import FrameScorer, require_room
from flawline.runtime.kernels import ProximalErrorMap
from flawline.runtime.map_kinds import SALIENCIES, output_of

_FLOAT_BYTES = 4
_MAPS = 2
"""The anomaly map and the copy that is handed out; what the kernel holds besides is some rows of each thread."""


class ReconstructionScorer(FrameScorer):
    """Frames to anomaly maps and scores by a reconstruction, each map of the kind that the manifest names.

    `error` and `pse` are squared errors in squared grey levels, of single pixels and of residuals smoothed first
    (`flawline.runtime.kernels.proximally_sensitive_error`); `saliency` is the slope of the mean squared error by each
    pixel, both in units of 0 to 1, and `saliency-squared` its square. Of a network that gives both a reconstruction and its
    saliency, only what the map is made of is computed.

    Args:
        features: Bytes of the ONNX file.
        manifest: Manifest of the bundle.
        backend: Name of the engine.
        threads: Threads of the engine and of the kernel.
        batch: Most frames that are scored at once.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last call took.
    """

    def __init__(
        self, features: bytes, manifest: ReconstructionManifest, *, backend: str, threads: int = 1, batch: int = 1
    ) -> None:
        frame, self._kind = manifest.input, manifest.reconstruction.map
        require_room(_workspace_bytes(manifest, batch), manifest, threads=threads, batch=batch)
        super().__init__(
            features, manifest, backend=backend, threads=threads, batch=batch, needed=(output_of(self._kind),)
        )
        # Grey frames are the same bytes in either layout; colour has planes already.
        self._frames = self._extractor.input.reshape(batch, frame.channels, frame.height, frame.width)
        self._error: ProximalErrorMap | None = None
        if self._kind not in SALIENCIES:
            self._error = ProximalErrorMap(
                (frame.height, frame.width),
                manifest.map.sigma if self._kind == "pse" else 0.0,
                channels=frame.channels,
                dtype=np.uint8,
                batch=batch,
                normalised=manifest.reconstruction.normalised,
                threads=threads,
            )

    def _score(
        self, outputs: Sequence[npt.NDArray[np.float32]], maps: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        if self._error is not None:
            return self._error(self._frames[: len(maps)], outputs[0], maps).maximum
        saliency = outputs[0][:, 0]
        if self._kind == "saliency":
            maps[...] = saliency
        else:
            np.multiply(saliency, saliency, out=maps)
        scores: npt.NDArray[np.float32] = maps.max(axis=(1, 2))
        return scores


def _workspace_bytes(manifest: ReconstructionManifest, batch: int) -> int:
    """What is held while frames are scored: all but what the engine keeps to itself.

    For each frame of the batch the input, the one output of the network that is computed and two maps, and one resized
    frame where planes of colour are made of it. An engine asks for room for input and output too, but for them alone,
    before the maps are there.
    """
    frame = manifest.input
    output_channels = 1 if manifest.reconstruction.map in SALIENCIES else frame.channels
    resized = frame.channels if frame.layout == "nchw" and frame.channels > 1 else 0
    of_batch = batch * (frame.channels + _FLOAT_BYTES * (output_channels + _MAPS))
    return (of_batch + resized) * manifest.positions
