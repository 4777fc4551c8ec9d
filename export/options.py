"""What shapes a bundle besides the images."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flawline.calibration import projections
from flawline.calibration.split import draw, split
from flawline.calibration.statistics import StatisticsOptions
from flawline.runtime.errors import InputError
from flawline.runtime.kernels import MOST_THREADS, Upsampling
from flawline.runtime.precisions import Precision


def default_threads() -> int:
    """As many threads as there are cores for this process."""
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


@dataclass(frozen=True, kw_only=True)
class WebOptions:
    """What shapes a bundle for an endless web besides the rest.

    Attributes:
        strip_lines: Height of the strips whose maxima the threshold is calibrated on; rounded up to the network's stride.
        tile_px: Width of a tile, likewise; the whole web for the tie `column`. Four times the context, if None, so that half as much
            again goes through the network, or the web if that is narrower.
        pixel_mm: Distance of neighbouring pixels, if known.
        line_mm: Travel of the web per line, if known.
        margin_px: Pixels inside each edge of the web that are masked; None for a web that is not looked for edges.
        shading_px: What changes over more pixels than these is taken out as shading; None for nothing.
        binning: Pixels along each axis whose mean is one pixel for the network; all other lengths stay in pixels of the web.
        flat_field: File of a flat field that is taken out of every line before anything else; None for none.
    """

    strip_lines: int = 256
    tile_px: int | None = None
    pixel_mm: float | None = None
    line_mm: float | None = None
    margin_px: int | None = 32
    shading_px: int | None = None
    binning: int = 1
    flat_field: Path | None = None

    def __post_init__(self) -> None:
        """Refuses numbers that no web could make sense of."""
        for name, value, most in (
            ("strips", self.strip_lines, 8192),
            ("tiles", 1 if self.tile_px is None else self.tile_px, 16384),
            ("shading", 1 if self.shading_px is None else self.shading_px, 65536),
            ("bins", self.binning, 64),
        ):
            if not 1 <= value <= most:
                raise InputError(f"{name} of {value} px; expected 1 to {most}")
        for name, pitch_mm in (("pixels", self.pixel_mm), ("lines", self.line_mm)):
            if pitch_mm is not None and not 0 < pitch_mm < math.inf:
                raise InputError(f"a pitch of {pitch_mm} mm for {name}; expected a positive number such as 0.1")
        if self.margin_px is not None and not 0 <= self.margin_px <= 65536:
            raise InputError(f"a margin of {self.margin_px} px at the edges; expected 0 to 65536")


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What a fit of any detector does with the good images.

    Attributes:
        false_reject_rate: Wanted share of good images that are rejected.
        calibration_images: Good images held out for the threshold; a fifth, or what the rate needs, if None.
        fit_images: So many images are fitted, drawn at random from those not held out; all of them if None.
        group_by: Regular expression on file names; images of one group stay on one side of the split.
        skip_bad: Go on without images that cannot be read.
        seed: Seed of the split and every other draw.
        threads: Threads that compute.
    """

    false_reject_rate: float = 0.05
    calibration_images: int | None = None
    fit_images: int | None = None
    group_by: str | None = None
    skip_bad: bool = False
    seed: int = 0
    threads: int = field(default_factory=default_threads)

    def __post_init__(self) -> None:
        """Refuses numbers that no images could make sense of."""
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed is {self.seed}; expected 0 to 2^63 - 1")
        if not 1 <= self.threads <= MOST_THREADS:
            raise InputError(f"threads is {self.threads}; expected 1 to {MOST_THREADS}")

    def split(self, images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        """Good images to fit, and those held out for the threshold.

        Raises:
            InputError: They are too few, or the rate or the expression cannot be.
        """
        fitted, held_out = split(
            images,
            false_reject_rate=self.false_reject_rate,
            calibration_images=self.calibration_images,
            group_by=self.group_by,
            seed=self.seed,
        )
        return fitted if self.fit_images is None else draw(fitted, self.fit_images, self.seed), held_out


@dataclass(frozen=True, kw_only=True)
class FitOptions(ImageOptions):
    """Everything that shapes a bundle besides the images.

    Attributes:
        backbone: Name of a network, or path of an ONNX file.
        layers: Feature layers; the network's default ones if None.
        weights: Weights file, `random`, or None for the installed default.
        image_size: Height and width of the network's input, px; the network's default if None.
        layout: Order of the axes of the graph's input; frames stay (height, width) or (height, width, 3).
        map_stride: Input pixels per position of the map; the network's default if None.
        mean: Per RGB channel in units of 0 to 255, for an ONNX file; a named network brings its own.
        std: Likewise.
        projection: Kind of projection.
        dimension: Channels that remain; 100, or all if there are fewer, if None.
        upsampling: How coarser maps reach the size of the anomaly map.
        smoothing_px: Standard deviation of the Gaussian that smooths the map, in pixels of the network's input.
        precision: Of the network.
        statistics: How the good images are modelled.
    """

    backbone: str = "efficientnet-lite0"
    layers: tuple[str, ...] | None = None
    weights: str | None = None
    image_size: int | None = None
    layout: Literal["nhwc", "nchw"] = "nhwc"
    map_stride: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    projection: projections.Kind = "orthogonal"
    dimension: int | None = None
    upsampling: Upsampling = "bilinear"
    smoothing_px: float = 12.0
    precision: Precision = "fp32"
    statistics: StatisticsOptions = field(default_factory=StatisticsOptions)

    def __post_init__(self) -> None:
        """Refuses numbers that no images could make sense of."""
        super().__post_init__()
        if not 0 <= self.smoothing_px <= 1000:
            raise InputError(f"smoothing is {self.smoothing_px} px; expected 0 (none) to 1000")
        if self.dimension is not None and self.dimension < 1:
            raise InputError(
                f"dimension is {self.dimension}; expected 1 or more, up to the channels of the layers (--dim)"
            )
