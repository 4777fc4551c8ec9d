"""Frames to anomaly maps and scores by PaDiM: the feature graph and Mahalanobis distances behind it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle.manifest import PadimManifest
from flawline.runtime.frame_scorer import FrameScorer, require_room
from flawline.runtime.kernels import Gaussians, MahalanobisMap

_MOST_ROWS = 8
"""Rows of embeddings, of all frames, that a thread of the kernel holds at once where they share Gaussians."""

_BYTES_PER_POSITION = 32
"""Distances before and after smoothing and a result, float32; the order of the positions with what sorts them."""


class Scorer(FrameScorer):
    """Frames to anomaly maps and scores by PaDiM. Each factor is read once for all frames of a batch.

    Args:
        features: Bytes of the ONNX file.
        manifest: Manifest of the bundle.
        gaussians: Statistics of the good images.
        backend: Name of the engine.
        threads: Threads of the engine and of the kernel.
        batch: Most frames that are scored at once.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last call took.
    """

    def __init__(
        self,
        features: bytes,
        manifest: PadimManifest,
        gaussians: Gaussians,
        *,
        backend: str,
        threads: int = 1,
        batch: int = 1,
    ) -> None:
        require_room(_workspace_bytes(manifest, threads, batch), manifest, threads=threads, batch=batch)
        super().__init__(features, manifest, backend=backend, threads=threads, batch=batch)
        self._mahalanobis = MahalanobisMap(
            gaussians,
            [(output.height, output.width) for output in manifest.network.outputs],
            (manifest.map.height, manifest.map.width),
            upsampling=manifest.map.upsampling,
            sigma=manifest.map.sigma,
            threads=threads,
            batch=batch,
        )

    def _score(
        self, outputs: Sequence[npt.NDArray[np.float32]], maps: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        return self._mahalanobis(outputs, maps)[1]


def _workspace_bytes(manifest: PadimManifest, threads: int, batch: int) -> int:
    """What the kernel and the maps take at most: each thread's embeddings, and whole maps, orders and distances."""
    rows = 1 if manifest.gaussian.tie == "position" else min(manifest.map.height, -(-_MOST_ROWS // max(batch, 1)))
    embeddings = threads * rows * manifest.map.width * manifest.projection.dimension
    return batch * (4 * embeddings + _BYTES_PER_POSITION * manifest.positions)
