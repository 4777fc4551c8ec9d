"""The parity gate: scores of the artefact that ships against the textbook formula in float64, on real images."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from flawline.calibration import projections
from flawline.calibration.statistics import FactorType, Statistics
from flawline.export.features import Exported
from flawline.runtime.bundle.manifest import PadimManifest, Report
from flawline.runtime.errors import FlawlineError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.extras import LazyModule
from flawline.runtime.kernels import Upsampling
from flawline.runtime.precisions import ENGINES

if TYPE_CHECKING:
    import torch
    from scipy import ndimage
else:
    torch = LazyModule("torch", "pip install 'flawline[fit]'")
    ndimage = LazyModule("scipy.ndimage", "pip install 'flawline[fit]'")

Frame = npt.NDArray[np.uint8]

TOLERANCES: dict[FactorType, float] = {"fp32": 1e-4, "fp16": 2e-3, "int8": 5e-3}
"""Largest relative score error that passes, by the type of the factors."""

# Of centred vectors at once: the factorisation is made anew for each part, so that fewer would cost time.
_CHUNK_BYTES = 32 << 20


class ParityError(FlawlineError):
    """The artefact does not score like its reference; nothing is written."""


class Reference:
    """Scores frames by the textbook, in float64 from the network on.

    A named network is run in torch: its maps are resampled and concatenated at full depth and only then projected. A
    network from an ONNX file has no second implementation: there the projected maps come from the exported graph, and
    what is proven is everything after them. Nothing of the runtime's kernels is used.

    Args:
        exported: The feature graph and the torch network behind it.
        manifest: PadimManifest of the bundle.
        statistics: Means and regularised covariances in float64.
        threads: Threads of the engine.

    Attributes:
        name: What the reference is, for the report.
    """

    def __init__(self, exported: Exported, manifest: PadimManifest, statistics: Statistics, *, threads: int) -> None:
        self._exported = exported
        self._manifest = manifest
        self._statistics = statistics
        self._size = (manifest.map.height, manifest.map.width)
        self._projection = projections.expand(
            manifest.projection.kind, exported.stored_projection, manifest.projection.input_dimension
        )
        self._network = None if exported.module is None else exported.module.double()
        features = "the exported graph's maps" if self._network is None else "torch features in float64"
        self.name = f"{features} and the textbook distance in float64"
        # Only its resize is used where torch computes the maps.
        self._extractor = FeatureExtractor(
            exported.features,
            manifest.input,
            manifest.network,
            manifest.output_channels,
            backend=ENGINES[manifest.network.precision][0],
            threads=threads,
        )

    def __call__(self, frames: Sequence[Frame]) -> npt.NDArray[np.float64]:
        """Anomaly maps of frames.

        Args:
            frames: uint8 (height, width) or (height, width, 3) each.

        Returns:
            float64 (B, h, w); a score is the maximum of its map.
        """
        values = np.stack([self._embeddings(frame) for frame in frames])
        return textbook_maps(values, self._statistics, self._manifest.map.sigma)

    def _embeddings(self, frame: Frame) -> npt.NDArray[np.float64]:
        self._extractor.load(0, frame)
        if self._network is None:
            maps = [features[0].astype(np.float64) for features in self._extractor.run()]
            return np.asarray(sum(self._resample(features) for features in maps))
        maps = self._run_torch(self._network, self._extractor.pixels[0])
        concatenated = np.concatenate([self._resample(features) for features in maps], axis=2)
        return np.asarray(concatenated @ self._projection.T, np.float64)

    def _run_torch(self, network: "torch.nn.Module", resized: Frame) -> list[npt.NDArray[np.float64]]:
        pixels = torch.from_numpy(np.array(np.broadcast_to(resized, (*resized.shape[:2], 3)))).double()
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self._exported.mean, self._exported.std))
        image = ((pixels - mean) / std).permute(2, 0, 1)[None]
        if self._exported.binning > 1:
            image = torch.nn.functional.avg_pool2d(image, self._exported.binning)
        with torch.inference_mode():
            maps = [np.asarray(features[0].numpy(), np.float64) for features in network(image)]
        web = self._manifest.web
        return maps if web is None else [_cropped(features, resized.shape[0], web.halo - web.ring) for features in maps]

    def _resample(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        rows, columns = (
            _resampling(source, target, self._manifest.map.upsampling)
            for source, target in zip(features.shape[1:], self._size, strict=True)
        )
        return np.asarray(np.einsum("ij,cjk,lk->ilc", rows, features, columns, optimize=True), np.float64)


def _cropped(features: npt.NDArray[np.float64], height: int, border_px: int) -> npt.NDArray[np.float64]:
    """The map (c, h, w) of an image of that height without what lies near its border."""
    edge = border_px * features.shape[1] // height
    return features[:, edge : features.shape[1] - edge, edge : features.shape[2] - edge]


def _resampling(source: int, target: int, upsampling: Upsampling) -> npt.NDArray[np.float64]:
    """The matrix (target, source) that averages where the target is coarser, else interpolates."""
    positions = np.arange(source)
    if source > target:
        return np.repeat(np.eye(target), source // target, axis=1) * (target / source)
    if upsampling == "nearest":
        return np.asarray(positions == (np.arange(target) * source // target)[:, None], np.float64)
    centres = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(centres[:, None] - positions)))


def textbook_maps(values: npt.NDArray[np.float64], statistics: Statistics, sigma: float) -> npt.NDArray[np.float64]:
    """Anomaly maps by the textbook: distances under a Gaussian blur.

    Args:
        values: float64 (B, h, w, d), embeddings.
        statistics: Means and regularised covariances.
        sigma: Of the blur, in pixels of the map.

    Returns:
        float64 (B, h, w).
    """
    batch, height, width, dimension = values.shape
    distances = textbook_distances(values.reshape(batch, -1, dimension), statistics).reshape(batch, height, width)
    if sigma == 0:
        return distances
    radius = int(np.ceil(3 * sigma))
    return np.asarray(ndimage.gaussian_filter(distances, (0, sigma, sigma), mode="mirror", radius=(0, radius, radius)))


def textbook_distances(
    values: npt.NDArray[np.float32] | npt.NDArray[np.float64], statistics: Statistics
) -> npt.NDArray[np.float64]:
    """Distances by the textbook: sqrt((x - mean)^T Sigma^-1 (x - mean)) to the nearest component, in float64.

    Source: Zhang, Zhang, Dong (2021), equation 10.

    Args:
        values: float32 or float64 (B, P, d), embeddings.
        statistics: Means and regularised covariances.

    Returns:
        float64 (B, P).
    """
    batch, positions, dimension = values.shape
    distances = np.empty((batch, positions))
    for g, (mean, covariance) in enumerate(zip(statistics.mean, statistics.covariance, strict=True)):
        own = np.flatnonzero(statistics.gaussians.assignment == g)
        vectors = values[:, own].reshape(-1, dimension)
        squared = [
            _squared(part, mean, covariance)
            for part in np.array_split(vectors, -(-len(vectors) * mean.nbytes // _CHUNK_BYTES))
        ]
        distances[:, own] = np.sqrt(np.concatenate(squared)).reshape(batch, -1)
    return distances


def _squared(
    vectors: npt.NDArray[Any], mean: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Squared distances (n,) of vectors (n, d) to the nearest of the components (K, d), (K, d, d)."""
    centred = (vectors[:, None] - mean).transpose(1, 2, 0)
    return np.asarray((centred * np.linalg.solve(covariance, centred)).sum(axis=1).min(axis=0), np.float64)


class MapReference(Protocol):
    """Makes anomaly maps, float64 (B, h, w), by other means than the artefact."""

    @property
    def name(self) -> str:
        """What the reference is, for the report."""

    def __call__(self, frames: Sequence[Frame], /) -> npt.NDArray[np.float64]:
        """Anomaly maps of frames, uint8 (height, width) or (height, width, 3) each."""
        ...


def check(
    score: Callable[[Frame], tuple[float, npt.NDArray[np.float32]]],
    reference: MapReference,
    frames: Sequence[Frame],
    *,
    tolerance: float,
) -> Report:
    """Compares scores and lets pass only what agrees.

    Args:
        score: The artefact's score and anomaly map of a frame.
        reference: The reference.
        frames: Held-out real images.
        tolerance: Largest relative error that passes.

    Returns:
        What the manifest says of it.

    Raises:
        ParityError: An error is beyond the tolerance, or a score is not finite.
    """
    expected = reference(frames)
    scores, maps = zip(*(score(frame) for frame in frames), strict=True)
    # Both relative to the score: a pixel of its own may be zero where a background does not vary.
    scale = np.maximum(expected.max(axis=(1, 2)), float(np.finfo(np.float32).tiny))
    errors = np.abs(np.array(scores) - expected.max(axis=(1, 2))) / scale
    map_errors = np.abs(np.stack(maps) - expected) / scale[:, None, None]
    worst = float(errors.max())
    if not worst <= tolerance:
        raise ParityError(
            f"the exported detector does not score like {reference.name}: largest relative error {worst:.2g} on "
            f"{len(frames)} images, tolerance {tolerance:g}; nothing was written"
        )
    return {
        "reference": reference.name,
        "images": len(frames),
        "relative_error_median": float(np.median(errors)),
        "relative_error_max": worst,
        "map_relative_error_p99": float(np.quantile(map_errors, 0.99)),
        "map_relative_error_max": float(map_errors.max()),
        "tolerance": tolerance,
    }
