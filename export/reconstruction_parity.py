"""The gate of reconstruction detectors: maps of the file that ships against the papers' equations in float64.

Nothing of the runtime but its resize is used here. The squares of equations 3 and 4 of Gudi and others (2022) and of
equations 1 to 3 of Feeney and others (2021) are written out once more, in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline.calibration.principal_components import PrincipalComponents
from flawline.export import parity
from flawline.runtime.bundle.manifest import ReconstructionManifest, ReconstructionMapKind, Report
from flawline.runtime.extras import LazyModule
from flawline.runtime.resizing import resize_into

if TYPE_CHECKING:
    from scipy import ndimage
else:
    ndimage = LazyModule("scipy.ndimage", "pip install 'flawline[fit]'")

Frame = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

TOLERANCES: dict[ReconstructionMapKind, float] = {
    "error": 1e-3,
    "pse": 1e-3,
    "saliency": 1e-3,
    "saliency-squared": 2e-3,
}
"""Largest relative error of a score that passes; and, of a map of errors, that of any pixel, relative to the score."""

SALIENCY_TOLERANCES: dict[ReconstructionMapKind, float] = {"saliency": 1e-4, "saliency-squared": 2e-4}
"""What 99 of 100 pixels of a saliency map must keep, relative to the score. Not all of them: where a unit is at the kink of
its ReLU within what float32 can tell, the slope is either of two, and the pixels that it sees may differ by percents. At
128 x 128 px that was so in one image of fifty."""


@dataclass(frozen=True)
class Reference:
    """A detector once more, in float64, by other means than the file that ships.

    Attributes:
        name: What it is, for the report.
        reconstruct: Images, uint8 (N, height, width) or (N, height, width, 3) at the detector's size, to reconstructions,
            float64 (N, channels, height, width) in grey levels.
        saliency: Such images to |d mean squared error / d pixel|, the maximum over channels, with pixels from 0 to 1:
            float64 (N, height, width). None for a detector that offers no saliency.
    """

    name: str
    reconstruct: Callable[[Frame], Doubles]
    saliency: Callable[[Frame], Doubles] | None = None


class ReferenceMaps:
    """Anomaly maps of frames by a reference, of the kind of map that the manifest is set to.

    Args:
        reference: The detector in float64.
        manifest: How frames reach it and what is made of its reconstruction.

    Attributes:
        name: What the reference is.
    """

    def __init__(self, reference: Reference, manifest: ReconstructionManifest) -> None:
        self.name = reference.name
        self._reference = reference
        self._manifest = manifest

    def __call__(self, frames: Sequence[Frame]) -> Doubles:
        """Maps of frames, uint8 (height, width) or (height, width, 3) each: float64 (B, height, width)."""
        images = np.stack([self._resized(frame) for frame in frames])
        facts = self._manifest.reconstruction
        if facts.map in ("saliency", "saliency-squared"):
            if self._reference.saliency is None:
                raise ValueError(f"map {facts.map} and a reference without saliency; expected one with it")
            slopes = self._reference.saliency(images)
            return slopes**2 if facts.map == "saliency-squared" else slopes
        planes = images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2)
        residual = planes - self._reference.reconstruct(images)
        sigma = self._manifest.map.sigma if facts.map == "pse" else 0.0
        return proximal_error(residual, sigma, normalised=facts.normalised)

    def _resized(self, frame: Frame) -> Frame:
        expected = self._manifest.input
        shape = (expected.height, expected.width)
        image = np.empty(shape if expected.channels == 1 else (*shape, 3), np.uint8)
        resize_into(frame, image, expected.interpolation)
        return image


def proximal_error(residual: Doubles, sigma: float, *, normalised: bool) -> Doubles:
    """Proximally Sensitive Error of each pixel (Gudi and others, 2022, equations 3 and 4), the mean over channels.

    Args:
        residual: float64 (B, channels, height, width), images less reconstructions; 0 beyond their borders.
        sigma: Standard deviation of the Gaussian, px; 0 for the squared error.
        normalised: Whether the taps, the integers up to 2 sigma, are scaled to sum 1.

    Returns:
        float64 (B, height, width).
    """
    if sigma > 0:
        reach = np.arange(-math.floor(2 * sigma), math.floor(2 * sigma) + 1)
        taps = np.exp(-(reach**2) / (2 * sigma**2))
        taps /= taps.sum() if normalised else math.sqrt(2 * math.pi) * sigma
        for axis in (2, 3):
            residual = ndimage.convolve1d(residual, taps, axis=axis, mode="constant")
    return np.asarray((residual**2).mean(axis=1), np.float64)


def reference_of(components: PrincipalComponents) -> Reference:
    """Principal components in float64, as they were fitted: mean + B^T B (x - mean), one matrix after the other."""
    mean, basis = components.mean.astype(np.float64), components.basis.astype(np.float64)

    def reconstruct(images: Frame) -> Doubles:
        values = np.stack(
            [np.moveaxis(image.reshape(*image.shape[:2], -1), 2, 0).reshape(-1) for image in images]
        ).astype(np.float64)
        coefficients = (values - mean) @ basis.T
        return np.asarray((coefficients @ basis + mean).reshape(len(images), *components.shape), np.float64)

    return Reference("principal components and proximally sensitive error in float64", reconstruct)


def check(
    score: Callable[[Frame], tuple[float, npt.NDArray[np.float32]]],
    reference: Reference,
    manifest: ReconstructionManifest,
    frames: Sequence[Frame],
) -> Report:
    """Compares scores and maps of the kind that the manifest is set to, and lets pass only what agrees.

    Args:
        score: The artefact's score and anomaly map of a frame.
        reference: The detector in float64.
        manifest: Of the artefact.
        frames: Held-out real images.

    Returns:
        What the manifest says of it.

    Raises:
        ParityError: An error is beyond the tolerance, or not a number.
    """
    kind = manifest.reconstruction.map
    report = parity.check(score, ReferenceMaps(reference, manifest), frames, tolerance=TOLERANCES[kind])
    if kind in SALIENCY_TOLERANCES:
        which, tolerance, worst = "99 % of pixels", SALIENCY_TOLERANCES[kind], float(report["map_relative_error_p99"])
    else:
        which, tolerance, worst = "all pixels", TOLERANCES[kind], float(report["map_relative_error_max"])
    if not worst <= tolerance:
        raise parity.ParityError(
            f"maps of the exported detector are not those of {reference.name}: largest error of {which} {worst:.2g} of a score "
            f"on {len(frames)} images, tolerance {tolerance:g}; nothing was written"
        )
    return report


def joined(reports: Sequence[Report]) -> Report:
    """One report of several kinds of map: the worst of each error."""
    return {
        name: value if isinstance(value, str) else max(float(report[name]) for report in reports)
        for name, value in reports[0].items()
    }
