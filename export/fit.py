"""Good images to a bundle: split, export, collect statistics from the exported graph, calibrate, prove, write."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration import conformal
from flawline.calibration.good_images import check_images
from flawline.calibration.split import draw, split
from flawline.calibration.statistics import EmbeddingReader, Statistics, collect
from flawline.export import parity
from flawline.export.draft import describe, draft, require_memory
from flawline.export.features import Exported, export_features, open_backbone
from flawline.export.options import FitOptions
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.detector import Scorer
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import read_image
from flawline.runtime.progress import progress

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[fit]'")

__all__ = ["FitOptions", "fit_bundle"]

Frame = npt.NDArray[np.uint8]
Say = Callable[[str], object]

_BATCH = 4
_GOLDEN_FRAMES = 3
_GOLDEN_FRAME_BYTES = 1 << 20
_PARITY_IMAGES = 4


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
    bundles.require_free(out)
    # One BLAS thread: the products are small, so that more would only wait for each other, and the sums stay the same on
    # any number of cores.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        return _fit(images, out, options, say)


def _fit(images: Sequence[Path], out: Path, options: FitOptions, say: Say) -> bundles.Bundle:
    # Refuses an impossible rate or an empty folder before any image is decoded.
    _split(images, options)
    backbone = open_backbone(
        options.backbone,
        layers=options.layers,
        weights=options.weights,
        image_size=options.image_size,
        mean=options.mean,
        std=options.std,
        seed=options.seed,
    )
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
        layout=options.layout,
        projection=options.projection,
        dimension=options.dimension,
        map_stride=options.map_stride,
        seed=options.seed,
    )
    manifest = draft(good, fitted, len(held_out), exported, options)
    say(describe(manifest))
    require_memory(manifest, exported, len(fitted), _BATCH, options.statistics)

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
        return collect(
            reader, frames, len(fitted), exported.map_size, manifest.projection.dimension, options.statistics
        )
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
