"""Good images to a bundle: split, export, fit the float detector, fit the precision that was asked for, prove, write."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.calibration.good_images import check_images
from flawline.export.converting import running
from flawline.export.draft import describe, draft, require_memory
from flawline.export.features import Exported, export_features, open_backbone, projected_dimension
from flawline.export.fitting import BATCH, Images, Say, fit_detector, warn_of_few
from flawline.export.labelled import Labelled
from flawline.export.options import FitOptions
from flawline.export.support import require_support
from flawline.export.variants import FloatDetector, fit_variant, labelled_auroc
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.bundle.contents import gaussians
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import ENGINES
from flawline.runtime.scorer import Scorer

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[fit]'")

__all__ = ["FitOptions", "fit_bundle"]


def fit_bundle(
    images: Sequence[Path],
    out: Path,
    options: FitOptions,
    say: Say = lambda line: None,
    *,
    labelled: Labelled | None = None,
) -> bundles.Bundle:
    """Fits a detector and writes its bundle.

    The float detector is always fitted and held to the textbook formula. A bundle in another precision holds that one
    alone, which is held to the float detector.

    Args:
        images: Good images.
        out: Folder to make; must not exist.
        options: Everything else.
        say: Takes each line that tells what is being done.
        labelled: Images to compare AUROC on, where a precision other than fp32 is asked for.

    Returns:
        The bundle, as it was read back.

    Raises:
        InputError: Images or options are not what they must be.
        ResourceError: Memory or disk would not suffice.
        ParityError: The detector does not score like its reference.
    """
    bundles.require_free(out)
    if labelled is not None and options.precision == "fp32":
        raise InputError(
            "--labelled goes with a --precision other than fp32, whose AUROC is compared with that of fp32; for the AUROC "
            "of a bundle see `flawline evaluate`"
        )
    # One BLAS thread: the products are small, so that more would only wait for each other, and the sums stay the same on
    # any number of cores.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        return _fit(images, out, options, labelled, say)


def _fit(images: Sequence[Path], out: Path, options: FitOptions, labelled: Labelled | None, say: Say) -> bundles.Bundle:
    # Refuses an impossible rate or an empty folder before any image is decoded.
    options.split(images)
    backbone = open_backbone(
        options.backbone,
        layers=options.layers,
        weights=options.weights,
        image_size=options.image_size,
        mean=options.mean,
        std=options.std,
        seed=options.seed,
    )
    # Another that no image could change.
    projected_dimension(backbone, options.projection, options.dimension)
    good = check_images(images, skip_bad=options.skip_bad)
    for line in good.bad:
        say(f"left out: {line}")
    chosen = Images(*options.split(good.paths))
    say(
        f"{len(chosen.fitted)} good images to fit, {len(chosen.held_out)} held out for a threshold that rejects at most "
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
    manifest = draft(good, chosen, exported, options)
    say(describe(manifest))
    warn_of_few(manifest, len(chosen.fitted), say)
    require_memory(manifest, exported, len(chosen.fitted), BATCH, options.statistics)
    if options.precision != "fp32":
        require_support(options.precision, exported, manifest, threads=options.threads)
    with running(options.backbone):
        if options.precision == "fp32":
            fitted = fit_detector(exported, manifest, chosen, options.statistics, threads=options.threads, say=say)
        else:
            fitted = fit_variant(
                options.precision,
                _float_detector(exported, manifest, chosen, options, labelled, say),
                chosen,
                options.statistics,
                threads=options.threads,
                say=say,
            )
    return bundles.write(out, fitted.manifest, *fitted.payload)


def _float_detector(
    exported: Exported,
    manifest: facts.PadimManifest,
    images: Images,
    options: FitOptions,
    labelled: Labelled | None,
    say: Say,
) -> FloatDetector:
    """Fits the float detector, of which no factors are held while another precision is fitted beside it."""
    fitted = fit_detector(exported, manifest, images, options.statistics, threads=options.threads, say=say)
    scores = fitted.scores
    if labelled is not None:
        with Scorer(
            exported.features,
            fitted.manifest,
            gaussians(fitted.manifest, fitted.payload.statistics),
            backend=ENGINES["fp32"][0],
            threads=options.threads,
        ) as scorer:
            scores = scores._replace(image_auroc=labelled_auroc(scorer, labelled))
    return FloatDetector(exported, fitted.manifest, scores, labelled)
