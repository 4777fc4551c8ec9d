"""One precision of a classifier: its classes modelled by the features of the graph that ships, and held to the paper's test."""

from collections.abc import Collection
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration import conformal
from flawline.calibration.class_statistics import FEW_IMAGES, ClassOptions, fit_classes
from flawline.calibration.labelled_images import ImageSet, LabelledImages
from flawline.export import fidelity, parity
from flawline.export.classifier_graph import FEATURES
from flawline.export.classifier_parity import TOLERANCES, Network, ReferenceScores
from flawline.export.fitting import Say, evenly
from flawline.export.reconstruction_parity import joined
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.bundle.contents import gaussian_tensors
from flawline.runtime.classifier_scorer import ClassifierScorer
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.precisions import ENGINES
from flawline.runtime.progress import progress

Floats = npt.NDArray[np.float32]

_BATCH = 8
_GOLDEN_FRAMES = 3
_PARITY_IMAGES = 16


class ClassImages(NamedTuple):
    """Images of the classes.

    Attributes:
        fitted: Behind the Gaussians.
        held_out: Behind the proofs and the thresholds.
    """

    fitted: LabelledImages
    held_out: LabelledImages


class FittedClassifier(NamedTuple):
    """One precision of a classifier.

    Attributes:
        manifest: With thresholds and parity.
        payload: For the bundle.
        scores: Of the held-out images, by kind.
        labels: The class that each of them was given.
    """

    manifest: facts.ClassifierManifest
    payload: bundles.Payload
    scores: dict[facts.ScoreKind, fidelity.Scores]
    labels: list[str]


def fit_precision(
    features: bytes,
    manifest: facts.ClassifierManifest,
    images: ClassImages,
    reference: Network,
    options: ClassOptions,
    *,
    projection: npt.NDArray[np.generic] | None,
    threads: int,
    say: Say,
) -> FittedClassifier:
    """Fits one precision of a classifier.

    Args:
        features: The graph that ships.
        manifest: What it will say, but for thresholds and parity.
        images: Images of the classes.
        reference: The network once more, in float64.
        options: How the classes are modelled.
        projection: As a bundle stores it; None for none.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Raises:
        InputError: The features are not finite, or those of a class do not vary.
        ParityError: Scores are not those of the paper's test.
    """
    backend = ENGINES[manifest.network.precision][0]
    fitted, held_out = images
    learnt = deep_features(features, manifest, fitted, "fitting", threads=threads)
    statistics = fit_classes(learnt, fitted.labels, fitted.classes, options, threads=threads)
    if statistics.small:
        say(
            f"{statistics.small} of {len(fitted.classes)} classes have fewer than {FEW_IMAGES} images per feature: their own "
            "thresholds are of images that were fitted themselves, and so too small"
        )
    frames = [held_out.images[index] for index in evenly(range(len(held_out)), _PARITY_IMAGES)]
    scores: dict[facts.ScoreKind, Floats] = {}
    labels: list[str] = []
    reports: list[facts.Report] = []
    golden: list[bundles.Golden] = []
    # The golden frames are of the score in use, which is the first.
    for kind in sorted(manifest.classifier.scores, key=lambda kind: kind != manifest.kind):
        with ClassifierScorer(
            features,
            manifest.with_map(kind),
            statistics.gaussians,
            statistics.thresholds,
            backend=backend,
            threads=threads,
        ) as scorer:
            model = ReferenceScores(reference, learnt, fitted.labels, options, statistics.added, manifest.input, kind)
            reports.append(parity.check(scorer, model, frames, tolerance=TOLERANCES[options.factors]))
            scores[kind], labels = scored(scorer, held_out, f"calibrating {kind}")
            golden = golden or [bundles.Golden(frame, *scorer(frame)) for frame in frames[:_GOLDEN_FRAMES]]
        say(
            f"{kind}: scores equal {model.name} within {reports[-1]['relative_error_max']:.1e} (relative), on {len(frames)} "
            "held-out images"
        )
        if kind == "mahalanobis":
            beyond = np.count_nonzero(scores[kind] > 1) / len(held_out)
            say(f"beyond every class's {options.percentile:g}th percentile: {beyond:.1%} of the held-out images")
    tensors = gaussian_tensors(statistics.gaussians) | {"class_thresholds": statistics.thresholds}
    tensors |= {facts.score_tensor(kind): np.sort(of_kind) for kind, of_kind in scores.items()}
    if projection is not None:
        tensors["projection"] = projection
    rate = manifest.threshold.false_reject_rate
    judged = {kind: fidelity.Scores(found, conformal.threshold(found, rate)) for kind, found in scores.items()}
    return FittedClassifier(
        _calibrated(manifest, judged, joined(reports)), bundles.Payload(features, tensors, golden), judged, labels
    )


def deep_features(
    features: bytes, manifest: facts.ClassifierManifest, images: ImageSet, label: str, *, threads: int
) -> Floats:
    """Deep features, float32 (N, d), of images as a graph gives them, with a progress bar of that label."""
    found = np.empty((len(images), manifest.projection.dimension), np.float32)
    with extractor_of_classes(features, manifest, threads=threads, batch=_BATCH, needed=[FEATURES]) as extractor:
        for index in progress(range(len(images)), label=label):
            extractor.load(index % _BATCH, images.images[index])
            if index % _BATCH == _BATCH - 1 or index == len(images) - 1:
                start = index - index % _BATCH
                found[start : index + 1] = extractor.run()[0][: index + 1 - start, :, 0, 0]
    return found


def scored(scorer: ClassifierScorer, images: ImageSet, label: str) -> tuple[Floats, list[str]]:
    """Scores, float32 (n,), and classes of images, with a progress bar of that label."""
    scores, labels = np.empty(len(images), np.float32), []
    for index in progress(range(len(images)), label=label):
        scores[index] = scorer(images.images[index])[0]
        labels.append(scorer.classifications[0].label)
    return scores, labels


def extractor_of_classes(
    features: bytes,
    manifest: facts.ClassifierManifest,
    *,
    threads: int,
    batch: int = 1,
    needed: Collection[str] | None = None,
) -> FeatureExtractor:
    """The graph in the engine through which its classes are modelled; of its outputs those that are needed, all if None."""
    return FeatureExtractor(
        features,
        manifest.input,
        manifest.network,
        manifest.output_channels,
        backend=ENGINES[manifest.network.precision][0],
        threads=threads,
        batch=batch,
        needed=needed,
    )


def _calibrated(
    manifest: facts.ClassifierManifest, judged: dict[facts.ScoreKind, fidelity.Scores], report: facts.Report
) -> facts.ClassifierManifest:
    fact = manifest.classifier
    thresholds = {kind: facts.MapThreshold(score=of_kind.threshold) for kind, of_kind in judged.items()}
    return msgspec.structs.replace(
        manifest,
        threshold=msgspec.structs.replace(manifest.threshold, score=judged[fact.score].threshold),
        classifier=msgspec.structs.replace(fact, scores=thresholds),
        parity=report,
    )
