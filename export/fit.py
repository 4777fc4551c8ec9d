"""Good images to a bundle: split, export, collect statistics from the exported graph, calibrate, prove, write."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration import conformal, memory, projections
from flawline.calibration.gaussian import assignment
from flawline.calibration.good_images import GoodImages, check_images
from flawline.calibration.split import draw, split
from flawline.calibration.statistics import EmbeddingReader, Statistics, StatisticsOptions, Upsampling, collect
from flawline.export import parity
from flawline.export.features import Exported, export_features, open_backbone
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.detector import Scorer
from flawline.runtime.errors import InputError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.images import read_image
from flawline.runtime.progress import progress

Frame = npt.NDArray[np.uint8]
Say = Callable[[str], object]

_BATCH = 16
_GOLDEN_FRAMES = 3
_GOLDEN_FRAME_BYTES = 1 << 20
_GOLDEN_TOLERANCE = 5e-3
_PARITY_IMAGES = 4
# Stands in the manifest until the threshold is known; positive and finite, as the format demands.
_NO_THRESHOLD = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Everything that shapes a bundle besides the images.

    Attributes:
        backbone: Name of a network, or path of an ONNX file.
        layers: Feature layers; the network's default ones if None.
        weights: Weights file, `random`, or None for the installed default.
        image_size: Height and width of the network's input, px; the network's default if None.
        map_stride: Input pixels per position of the map; the network's default if None.
        mean: Per RGB channel in units of 0 to 255, for an ONNX file; a named network brings its own.
        std: Likewise.
        projection: Kind of projection.
        dimension: Channels that remain; 100, or all if there are fewer, if None.
        upsampling: How coarser maps reach the size of the anomaly map.
        smoothing_px: Standard deviation of the Gaussian that smooths the map, in pixels of the network's input.
        statistics: How the good images are modelled.
        false_reject_rate: Wanted share of good images that are rejected.
        calibration_images: Good images held out for the threshold; a fifth, or what the rate needs, if None.
        fit_images: At most so many images are fitted, drawn at random; all that are not held out if None.
        group_by: Regular expression on file names; images of one group stay on one side of the split.
        skip_bad: Go on without images that cannot be read.
        seed: Seed of the projection, the split and every other draw.
        threads: Threads that compute.
    """

    backbone: str = "efficientnet-lite0"
    layers: tuple[str, ...] | None = None
    weights: str | None = None
    image_size: int | None = None
    map_stride: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    projection: projections.Kind = "orthogonal"
    dimension: int | None = None
    upsampling: Upsampling = "bilinear"
    smoothing_px: float = 12.0
    statistics: StatisticsOptions = field(default_factory=StatisticsOptions)
    false_reject_rate: float = 0.05
    calibration_images: int | None = None
    fit_images: int | None = None
    group_by: str | None = None
    skip_bad: bool = False
    seed: int = 0
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        """Refuses numbers that no images could make sense of."""
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed is {self.seed}; expected 0 to 2^63 - 1")
        if not 0 <= self.smoothing_px <= 1000:
            raise InputError(f"smoothing is {self.smoothing_px} px; expected 0 (none) to 1000")
        if self.threads < 1:
            raise InputError(f"threads is {self.threads}; expected 1 or more")


def fit_bundle(images: Sequence[Path], out: Path, options: FitOptions, say: Say = lambda line: None) -> bundles.Bundle:
    """Fits a detector and writes its bundle.

    Args:
        images: Good images.
        out: Folder to make; must not exist.
        options: Everything else.
        say: Takes each line that tells what is being done.

    Returns:
        The bundle, as it was read back.

    Raises:
        InputError: Images or options are not what they must be.
        ResourceError: Memory or disk would not suffice.
        ParityError: The exported detector does not score like its float64 reference.
    """
    if out.exists():
        raise InputError(f"{out} exists; choose another path or remove it")
    backbone = open_backbone(
        options.backbone,
        layers=options.layers,
        weights=options.weights,
        image_size=options.image_size,
        mean=options.mean,
        std=options.std,
        seed=options.seed,
    )
    # Refuses an impossible rate or an empty folder before any image is decoded.
    _split(images, options)
    good = check_images(images, skip_bad=options.skip_bad)
    for line in good.bad:
        say(f"left out: {line}")
    fitted, held_out = _split(good.paths, options)
    say(
        f"{len(fitted)} good images to fit, {len(held_out)} held out for a threshold that rejects at most "
        f"{options.false_reject_rate:.1%} of good images"
    )
    exported = export_features(
        backbone,
        channels=good.channels,
        projection=options.projection,
        dimension=options.dimension,
        map_stride=options.map_stride,
        seed=options.seed,
    )
    manifest = _manifest(good, fitted, len(held_out), exported, options)
    say(describe(manifest))
    _require_memory(manifest, len(fitted), options.statistics)

    statistics = _collect(fitted, exported, manifest, options)
    scorer = Scorer(exported.features, manifest, statistics.gaussians, threads=options.threads)
    try:
        scores = np.array(
            [scorer(frame)[0] for frame in progress(_frames(held_out), total=len(held_out), label="calibrating")],
            np.float32,
        )
        checked = _evenly(held_out, _PARITY_IMAGES)
        report = parity.check(
            lambda frame: scorer(frame)[0],
            parity.Reference(exported, manifest, statistics, threads=options.threads),
            list(_frames(checked)),
            tolerance=parity.TOLERANCES[options.statistics.factors],
        )
        say(
            f"scores equal {report['reference']} within {report['relative_error_max']:.1e} (relative) on "
            f"{len(checked)} held-out images"
        )
        golden = _golden(scorer, manifest, _evenly(held_out, _GOLDEN_FRAMES))
    finally:
        scorer.close()
    score = conformal.threshold(scores, options.false_reject_rate)
    manifest = msgspec.structs.replace(
        manifest, threshold=msgspec.structs.replace(manifest.threshold, score=score), parity=report
    )
    return bundles.write(out, manifest, exported.features, _tensors(statistics, scores, exported), golden)


def describe(manifest: facts.Manifest) -> str:
    """One line on what a manifest's detector is made of."""
    network, projection, gaussian, map_ = manifest.network, manifest.projection, manifest.gaussian, manifest.map
    weights = "RANDOM weights, for timing only" if network.weights.random else f"weights {network.weights.origin}"
    kind = "absolute" if not gaussian.epsilon_relative else "of the mean feature variance"
    return (
        f"{network.name} ({weights}) at {manifest.input.width} x {manifest.input.height} px; "
        f"{projection.kind} projection {projection.input_dimension} -> {projection.dimension}; "
        f"{map_.width} x {map_.height} map, Gaussians tied by {gaussian.tie}, epsilon {gaussian.epsilon:g} {kind}, "
        f"smoothing {map_.sigma:g} map px"
    )


def _split(images: Sequence[Path], options: FitOptions) -> tuple[list[Path], list[Path]]:
    fitted, held_out = split(
        images,
        false_reject_rate=options.false_reject_rate,
        calibration_images=options.calibration_images,
        group_by=options.group_by,
        seed=options.seed,
    )
    if options.fit_images is not None:
        fitted = draw(fitted, options.fit_images, options.seed)
    return fitted, held_out


def _manifest(
    good: GoodImages, fitted: Sequence[Path], held_out: int, exported: Exported, options: FitOptions
) -> facts.Manifest:
    shrinks = good.smallest[0] >= exported.height and good.smallest[1] >= exported.width
    height, width = exported.map_size
    model = options.statistics
    source_height, source_width = good.size or (None, None)
    return facts.Manifest(
        detector="padim",
        input=facts.Input(
            height=exported.height,
            width=exported.width,
            channels=good.channels,
            interpolation="area" if shrinks else "linear",
            source_height=source_height,
            source_width=source_width,
        ),
        network=exported.network,
        projection=exported.projection,
        map=facts.Map(
            height=height,
            width=width,
            upsampling=options.upsampling,
            sigma=options.smoothing_px * height / exported.height,
        ),
        gaussian=facts.Gaussian(
            tie=model.tie,
            count=int(assignment(model.tie, height, width).max()) + 1,
            components=model.components,
            epsilon=model.epsilon,
            epsilon_relative=model.epsilon_relative,
            shrinkage=model.shrinkage,
            factors=model.factors,
            block_rows=8,
        ),
        threshold=facts.Threshold(
            false_reject_rate=options.false_reject_rate, score=_NO_THRESHOLD, calibration_images=held_out
        ),
        fit=facts.Fit(
            images=len(fitted),
            calibration_images=held_out,
            group_by=options.group_by,
            seed=options.seed,
            sources_sha256=good.fingerprint(fitted),
        ),
        parity=None,
        golden=facts.GoldenFacts(relative_tolerance=_GOLDEN_TOLERANCE),
    )


def _require_memory(manifest: facts.Manifest, images: int, model: StatisticsOptions) -> None:
    dimension, positions = manifest.projection.dimension, manifest.positions
    sample = images * positions * dimension * 4 * 2 if model.needs_sample else 0
    needed = memory.calibration_bytes(
        manifest.gaussian.count, model.components, dimension, 2 if model.factors == "fp16" else 4, sample
    )
    memory.require(
        needed,
        f"fitting {manifest.gaussian.count} Gaussians of {dimension} dimensions",
        "lower --dim or --image-size, raise --map-stride, or use --tie column or global",
    )


def _collect(fitted: Sequence[Path], exported: Exported, manifest: facts.Manifest, options: FitOptions) -> Statistics:
    extractor = FeatureExtractor(
        exported.features,
        manifest.input,
        manifest.network,
        manifest.projection.dimension,
        threads=options.threads,
        batch=_BATCH,
    )
    try:
        reader = EmbeddingReader(extractor, exported.map_size, options.upsampling, threads=options.threads)
        frames = progress(_frames(fitted), total=len(fitted), label="fitting")
        return collect(reader, frames, exported.map_size, manifest.projection.dimension, options.statistics)
    finally:
        extractor.close()


def _golden(scorer: Scorer, manifest: facts.Manifest, paths: Sequence[Path]) -> list[bundles.Golden]:
    golden = []
    for frame in _frames(paths):
        if frame.nbytes > _GOLDEN_FRAME_BYTES:
            # The middle, so that a bundle for large frames stays small; any frame is as good as another here.
            height, width = manifest.input.height, manifest.input.width
            top, left = max(0, (frame.shape[0] - height) // 2), max(0, (frame.shape[1] - width) // 2)
            frame = np.ascontiguousarray(frame[top : top + height, left : left + width])
        score, anomaly_map = scorer(frame)
        golden.append(bundles.Golden(frame=frame, score=score, map=anomaly_map))
    return golden


def _tensors(
    statistics: Statistics, scores: npt.NDArray[np.float32], exported: Exported
) -> dict[str, npt.NDArray[Any]]:
    gaussians = statistics.gaussians
    tensors: dict[str, npt.NDArray[Any]] = {
        "factors": gaussians.factors,
        "means": gaussians.means,
        "scales": gaussians.scales,
        "assignment": gaussians.assignment,
        "calibration_scores": np.sort(scores),
    }
    if exported.stored_projection is not None:
        tensors["projection"] = exported.stored_projection
    return tensors


def _frames(paths: Sequence[Path]) -> Iterator[Frame]:
    return (read_image(path) for path in paths)


def _evenly(paths: Sequence[Path], count: int) -> list[Path]:
    return [paths[index] for index in sorted({round(i) for i in np.linspace(0, len(paths) - 1, count)})]
