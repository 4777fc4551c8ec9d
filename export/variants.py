"""Further precisions of a detector: the network is converted first, then everything that depends on it is fitted again.

What the precision does to the features is then part of the model of normal.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration.statistics import StatisticsOptions
from flawline.export import fidelity
from flawline.export.calibrated import Calibrated, calibrate
from flawline.export.features import Exported
from flawline.export.fitting import Fitted, Images, Picture, Say, evenly, extractor_of, fit_detector, frames, score
from flawline.export.half import to_fp16
from flawline.export.labelled import Labelled
from flawline.export.quantising import CALIBRATION_IMAGES, SENSITIVITY_IMAGES, quantised
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.bundle.contents import gaussians
from flawline.runtime.errors import EngineError
from flawline.runtime.frame_scorer import FrameScorer
from flawline.runtime.precisions import ENGINES, Precision, Quantised
from flawline.runtime.scorer import Scorer

_COMPARED_IMAGES = 16


class FloatDetector(NamedTuple):
    """What every other precision is converted from, and held to.

    Attributes:
        exported: The float network.
        manifest: The detector's.
        scores: Of the held-out images, and on the labelled ones.
        labelled: Images to compare AUROC on, if there are any.
    """

    exported: Exported
    manifest: facts.PadimManifest
    scores: fidelity.Scores
    labelled: Labelled | None = None


def fit_variant(
    precision: Precision,
    reference: FloatDetector,
    images: Images,
    options: StatisticsOptions,
    *,
    threads: int,
    say: Say,
) -> Fitted:
    """Fits a detector in another precision and holds it to the float detector.

    Args:
        precision: Of the network.
        reference: The float detector.
        images: Good images, those of the float detector.
        options: How they are modelled.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Returns:
        The detector, whose manifest has the precision as its own.

    Raises:
        InputError: The precision does not support an operator of the network (`require_support` tells so before).
        EngineError: The engine of that precision refuses the network.
        MissingExtraError: The engine of that precision is not installed.
        ParityError: The detector does not score like the float detector.
    """
    try:
        converted = _convert(precision, reference, images, threads, say)
        manifest = msgspec.structs.replace(reference.manifest, network=converted.network, variants={})
        fitted = fit_detector(converted, manifest, images, options, threads=threads, say=say)
    except EngineError as error:
        raise EngineError(f"in {precision}, {error}") from error
    with (
        extractor_of(reference.exported, manifest, threads=threads) as floats,
        extractor_of(converted, manifest, threads=threads) as extractor,
    ):
        features = fidelity.feature_error(floats, extractor, frames(evenly(images.held_out, _COMPARED_IMAGES)))
    scores = fitted.scores
    if reference.labelled is not None:
        model = gaussians(fitted.manifest, fitted.payload.statistics)
        with Scorer(
            converted.features, fitted.manifest, model, backend=ENGINES[precision][0], threads=threads
        ) as scorer:
            scores = scores._replace(image_auroc=labelled_auroc(scorer, reference.labelled))
    report = fidelity.check(precision, reference.scores, scores, features)
    say(
        f"{precision} against fp32 on {len(images.held_out)} held-out images: features differ by "
        f"{report['feature_error']:.1%}, scores by {report['score_error_median']:.1%} (median) to "
        f"{report['score_error_max']:.1%}, rank correlation {report['rank_correlation']:.3f}, "
        f"{report['flipped_verdicts']:g} of their verdicts differ"
    )
    if reference.labelled is not None:
        say(
            f"{precision} against fp32 on {len(reference.labelled.paths)} labelled images: AUROC {report['image_auroc']:.4f} "
            f"instead of {report['float_image_auroc']:.4f}"
        )
    return fitted._replace(manifest=msgspec.structs.replace(fitted.manifest, fidelity=report))


def labelled_auroc(scorer: FrameScorer, labelled: Labelled) -> float:
    """AUROC of a detector over labelled images."""
    return fidelity.image_auroc(score(scorer, labelled.paths, "scoring labelled images"), labelled.defective)


def _convert(precision: Precision, reference: FloatDetector, images: Images, threads: int, say: Say) -> Exported:
    """The network in another precision."""
    exported, quantisation = reference.exported, None
    features = exported.features
    if precision == "int8" or precision == "int8-openvino" or precision == "int8-tensorrt":
        features, quantisation = _quantise(precision, reference, images, threads, say)
    elif precision == "fp16":
        features = to_fp16(features, _calibrate(reference, images, threads))
    network = msgspec.structs.replace(exported.network, precision=precision, quantisation=quantisation)
    return exported._replace(features=features, network=network, module=None)


def _quantise(
    precision: Quantised, reference: FloatDetector, images: Images, threads: int, say: Say
) -> tuple[bytes, facts.Quantisation]:
    calibrated = _calibrate(reference, images, threads)
    compared = list(_inputs(reference, evenly(images.held_out, SENSITIVITY_IMAGES), threads))
    count = min(len(images.fitted), CALIBRATION_IMAGES)
    return quantised(calibrated, precision, count, compared, threads=threads, say=say)


def _calibrate(reference: FloatDetector, images: Images, threads: int) -> Calibrated:
    chosen = evenly(images.fitted, CALIBRATION_IMAGES)
    return calibrate(reference.exported.features, _inputs(reference, chosen, threads), len(chosen), threads=threads)


def _inputs(reference: FloatDetector, paths: Sequence[Picture], threads: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The images as the feature graph takes them."""
    with extractor_of(reference.exported, reference.manifest, threads=threads) as extractor:
        for frame in frames(paths):
            extractor.load(0, frame)
            yield extractor.input[0].copy()
