"""A classifier in 8 bits: the network is quantised first, then its classes and thresholds are fitted again, and held to floats."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration.class_statistics import ClassOptions
from flawline.calibration.labelled_images import ImageSet
from flawline.export import fidelity
from flawline.export.calibrated import calibrate
from flawline.export.classifier_fitting import ClassImages, FittedClassifier, extractor_of_classes, fit_precision
from flawline.export.classifier_graph import NETWORK
from flawline.export.classifier_parity import Doubles, Frame, Network
from flawline.export.fitting import Say, evenly
from flawline.export.parity import ParityError
from flawline.export.quantising import CALIBRATION_IMAGES, SENSITIVITY_IMAGES, quantised
from flawline.runtime.backends import installed
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.classifier_scorer import MOST_LOG_ODDS
from flawline.runtime.errors import EngineError, InputError, MissingExtraError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.precisions import ENGINES, Precision, Quantised

CHANGED_CLASSES = 0.01
"""Largest share of held-out images whose class may be another than by the float network; one image always may."""

_COMPARED_IMAGES = 16


class FloatClassifier(NamedTuple):
    """What a precision is converted from, and held to.

    Attributes:
        features: The float graph.
        manifest: Of the float classifier.
        projection: As its bundle stores it; None for none.
        scores: Of the held-out images, by kind.
        labels: The class that each of them was given.
    """

    features: bytes
    manifest: facts.ClassifierManifest
    projection: npt.NDArray[np.generic] | None
    scores: Mapping[facts.ScoreKind, fidelity.Scores]
    labels: Sequence[str]


def quantised_precision(precision: Precision) -> Quantised:
    """That precision, if a classifier can be had in it besides fp32; asked for before anything is trained.

    Raises:
        InputError: There is no such form of a classifier.
        MissingExtraError: The engine of that precision is not installed.
    """
    if precision != "int8" and precision != "int8-openvino" and precision != "int8-tensorrt":
        raise InputError(f"a classifier in {precision}; expected fp32 or {', '.join(get_args(Quantised))}")
    engine = ENGINES[precision][0]
    if engine not in installed():
        raise MissingExtraError(f"{precision} needs the engine {engine}, which is not installed")
    return precision


def fit_classifier_variant(
    precision: Quantised,
    reference: FloatClassifier,
    images: ClassImages,
    options: ClassOptions,
    *,
    threads: int,
    say: Say,
) -> FittedClassifier:
    """Fits a classifier in 8 bits and holds it to the float classifier.

    Args:
        precision: Of the network.
        reference: The float classifier.
        images: Images of the classes, those of the float classifier.
        options: How they are modelled.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Returns:
        The classifier, whose manifest has the precision as its own.

    Raises:
        InputError: The network cannot be quantised.
        EngineError: The engine of that precision refuses the network.
        ParityError: The classifier does not score like the float classifier, or calls too many images otherwise.
    """
    own = reference.manifest
    features, quantisation = _quantise(precision, reference, images, threads, say)
    network = msgspec.structs.replace(own.network, precision=precision, quantisation=quantisation)
    manifest = msgspec.structs.replace(own, network=network, variants={}, parity=None)
    try:
        with (
            extractor_of_classes(reference.features, own, threads=threads) as floats,
            extractor_of_classes(features, manifest, threads=threads) as extractor,
        ):
            compared = [images.held_out.images[index] for index in _some(images.held_out, _COMPARED_IMAGES)]
            error = fidelity.feature_error(floats, extractor, compared)
            fitted = fit_precision(
                features,
                manifest,
                images,
                _in_graph(extractor),
                options,
                projection=reference.projection,
                threads=threads,
                say=say,
            )
    except EngineError as refused:
        raise EngineError(f"in {precision}, {refused}") from refused
    report = _held_to(reference, fitted, precision, error)
    say(
        f"{precision} against fp32 on {len(images.held_out)} held-out images: features differ by {error:.1%}, scores by "
        f"{report['score_error_median']:.1%} (median) to {report['score_error_max']:.1%}, rank correlation "
        f"{report['rank_correlation']:.3f}, {report['flipped_verdicts']:g} of their verdicts and "
        f"{report['changed_classes']:g} of their classes differ"
    )
    return fitted._replace(manifest=msgspec.structs.replace(fitted.manifest, fidelity=report))


def _quantise(
    precision: Quantised, reference: FloatClassifier, images: ClassImages, threads: int, say: Say
) -> tuple[bytes, facts.Quantisation]:
    chosen = _some(images.fitted, CALIBRATION_IMAGES)
    calibrated = calibrate(
        reference.features, _inputs(reference, images.fitted, chosen, threads), len(chosen), threads=threads
    )
    others = _inputs(reference, images.held_out, _some(images.held_out, SENSITIVITY_IMAGES), threads)
    # A vector's convolutions cost next to nothing, and the distances hear every step of them.
    own = [node.name for node in calibrated.convolutions if not node.name.startswith(NETWORK)]
    return quantised(calibrated, precision, len(chosen), list(others), in_float=own, threads=threads, say=say)


def _some(images: ImageSet, count: int) -> list[int]:
    return evenly(range(len(images)), count)


def _inputs(
    reference: FloatClassifier, images: ImageSet, chosen: Sequence[int], threads: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """The images as the graph takes them."""
    with extractor_of_classes(reference.features, reference.manifest, threads=threads) as extractor:
        for index in chosen:
            extractor.load(0, images.images[index])
            yield extractor.input[0].copy()


def _in_graph(extractor: FeatureExtractor) -> Network:
    """What a quantised graph gives: no other implementation rounds like it, and what is proven is what comes behind."""

    def outputs(images: Frame, index: int) -> Doubles:
        found = []
        for image in images:
            extractor.load(0, image)
            found.append(extractor.run()[index][0, :, 0, 0].astype(np.float64))
        return np.stack(found)

    def anomalous(images: Frame) -> Doubles:
        log_odds = outputs(images, 2)[:, 0].clip(-MOST_LOG_ODDS, MOST_LOG_ODDS)
        return np.asarray(1 / (1 + np.exp(-log_odds)), np.float64)

    return Network("the quantised graph's outputs", lambda images: outputs(images, 0), anomalous)


def _held_to(
    reference: FloatClassifier, fitted: FittedClassifier, precision: Quantised, feature_error: float
) -> facts.Report:
    """What the gates say of all scores, those of a second head under names that begin with `head_`, and of the classes."""
    report: facts.Report = {}
    for kind, received in fitted.scores.items():
        # A probability near 0 may be twice another and mean the same.
        found = fidelity.check(
            precision, reference.scores[kind], received, feature_error, relative=kind == "mahalanobis"
        )
        common = ("reference", "images", "feature_error", "feature_error_tolerance")
        report |= found if kind == "mahalanobis" else {f"{kind}_{n}": v for n, v in found.items() if n not in common}
    images = len(fitted.labels)
    changed = sum(one != other for one, other in zip(reference.labels, fitted.labels, strict=True))
    if changed > max(1, CHANGED_CLASSES * images):
        raise ParityError(
            f"in {precision} the class of {changed} of {images} held-out images is another than by the float classifier; the "
            f"tolerance is {CHANGED_CLASSES:.0%}; nothing was written"
        )
    return report | {"changed_classes": float(changed), "changed_classes_tolerance": CHANGED_CLASSES}
