"""Labelled images to a bundle of a classifier that says when an image is of none of its classes."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration import projections
from flawline.calibration.labelled_images import (
    ImageSet,
    LabelledImages,
    duplicates,
    read_images,
    read_labelled_images,
)
from flawline.calibration.split import split_classes
from flawline.detectors.checkpoint import require_place
from flawline.detectors.classifier_training import train_second_head
from flawline.detectors.second_head import SecondHead
from flawline.detectors.torch_threads import torch_threads
from flawline.detectors.weights import require_weights
from flawline.export.classifier_fitting import (
    ClassImages,
    FittedClassifier,
    deep_features,
    extractor_of_classes,
    fit_precision,
)
from flawline.export.classifier_graph import FEATURES, HEAD, LOGITS, Layer, compose_classifier
from flawline.export.classifier_module import layers_of
from flawline.export.classifier_network import ClassifierNetwork, open_network
from flawline.export.classifier_options import ClassifierOptions
from flawline.export.classifier_parity import check_probabilities
from flawline.export.classifier_reference import DeepFeatures, in_engine, in_torch, probabilities_in_torch, reference_of
from flawline.export.classifier_variants import FloatClassifier, fit_classifier_variant, quantised_precision
from flawline.export.fitting import Say, evenly
from flawline.export.frame_graph import INPUT
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.errors import InputError

__all__ = ["ClassifierOptions", "fit_classifier_bundle"]

Floats = npt.NDArray[np.float32]

_GOLDEN_TOLERANCE = 5e-3
_PROBABILITY_IMAGES = 16
# Positive and finite, as the format demands.
_NO_THRESHOLD = float(np.finfo(np.float32).max)


def fit_classifier_bundle(
    data: Path, out: Path, options: ClassifierOptions, say: Say = lambda line: None
) -> bundles.Bundle:
    """Trains a classifier on labelled images, models its classes, and writes its bundle.

    The images that are held out for the threshold are no part of the training, nor of the validation that stops it, nor of
    the classes' Gaussians.

    Args:
        data: See `read_labelled_images`.
        out: Folder to make; must not exist.
        options: Everything else.
        say: Takes each line that tells what is being done.

    Returns:
        The bundle, as it was read back.

    Raises:
        InputError: Images or options are not what they must be, an image out of the distribution is one of a class as
            well, or the checkpoint is of another training.
        DivergedError: The loss became NaN or infinite.
        ResourceError: Memory or disk would not suffice.
        MissingExtraError: The engine of the precision is not installed.
        EngineError: It refuses the network.
        ParityError: The exported classifier does not score like its reference, or that in 8 bits not like the one in floats.
    """
    bundles.require_free(out)
    if options.precision != "fp32":
        quantised_precision(options.precision)
    if options.checkpoint is not None:
        require_place(options.checkpoint)
    if options.weights_file is not None:
        require_weights(options.weights_file)
    size_px = options.side_px
    images = read_labelled_images(data, size_px)
    anomalies = (
        None
        if options.anomalies is None
        else read_images(options.anomalies, size_px, interpolation=images.interpolation)
    )
    if anomalies is not None:
        _require_apart(images, anomalies)
    fitted, held_out = (
        images.chosen(part)
        for part in split_classes(
            images.labels,
            false_reject_rate=options.false_reject_rate,
            calibration_images=options.calibration_images,
            seed=options.seed,
        )
    )
    say(
        f"{len(images.classes)} classes, {len(fitted)} images to fit, {len(held_out)} held out for a threshold that rejects at "
        f"most {options.false_reject_rate:.1%} of the images of these classes"
    )
    with torch_threads(options.threads):
        network = open_network(fitted, options, say)
        fit = _Fit(fitted, held_out, anomalies, network, options, say)
        made = fit.fitted()
        return bundles.write(out, made.manifest, *made.payload)


class _Fit:
    """A classifier that is being made into a bundle."""

    def __init__(
        self,
        fitted: LabelledImages,
        held_out: LabelledImages,
        anomalies: ImageSet | None,
        network: ClassifierNetwork,
        options: ClassifierOptions,
        say: Say,
    ) -> None:
        self._fitted, self._held_out, self._anomalies = fitted, held_out, anomalies
        self._network, self._options, self._say = network, options, say
        depth = network.graph.channels[0]
        kind: projections.Kind = "none" if options.dimension is None else options.projection or "orthogonal"
        dimension = depth if options.dimension is None else options.dimension
        self._projection = facts.Projection(
            kind=kind, seed=options.seed, input_dimension=depth, dimension=dimension, generator=projections.GENERATOR
        )
        self._stored = projections.stored(kind, input_dimension=depth, dimension=dimension, seed=options.seed)
        self._matrix = None if self._stored is None else projections.expand(kind, self._stored, depth)

    def fitted(self) -> FittedClassifier:
        """The classifier in the precision that was asked for."""
        head = self._head()
        features = self._compose(self._matrix, () if head is None else layers_of(head))
        manifest = self._draft(has_head=head is not None)
        reference = reference_of(*self._reference_features(), self._matrix, head)
        options, images = self._options, ClassImages(self._fitted, self._held_out)
        fitted = fit_precision(
            features,
            manifest,
            images,
            reference,
            options.statistics,
            projection=self._stored,
            threads=options.threads,
            say=self._say,
        )
        own = fitted.manifest
        report = {**(own.parity or {}), **self._probabilities(features, own)}
        fitted = fitted._replace(manifest=msgspec.structs.replace(own, parity=report))
        if options.precision != "fp32":
            floats = FloatClassifier(features, fitted.manifest, self._stored, fitted.scores, fitted.labels)
            fitted = fit_classifier_variant(
                quantised_precision(options.precision),
                floats,
                images,
                options.statistics,
                threads=options.threads,
                say=self._say,
            )
        return fitted

    def _probabilities(self, features: bytes, manifest: facts.ClassifierManifest) -> facts.Report:
        """Holds the graph's classes to those of torch. Of an ONNX file, there is no other implementation to hold it to."""
        if self._network.module is None:
            return {}
        images = np.stack(
            [self._held_out.images[index] for index in evenly(range(len(self._held_out)), _PROBABILITY_IMAGES)]
        )
        logits = []
        with extractor_of_classes(features, manifest, threads=self._options.threads, needed=[LOGITS]) as extractor:
            for image in images:
                extractor.load(0, image)
                logits.append(extractor.run()[0][0, :, 0, 0].copy())
        return check_probabilities(np.stack(logits), probabilities_in_torch(self._network.module, images))

    def _head(self) -> SecondHead | None:
        """The second head, trained on deep features as the device will have them, before any projection."""
        if self._anomalies is None:
            return None
        features, draft = self._compose(None, ()), self._draft(has_head=False, projected=False)
        self._say(
            f"second head: {len(self._fitted)} images of the classes against {len(self._anomalies)} of none, the network as it is"
        )
        head = SecondHead(draft.projection.dimension, seed=self._options.seed)
        train_second_head(
            head,
            deep_features(features, draft, self._fitted, "second head, classes", threads=self._options.threads),
            deep_features(features, draft, self._anomalies, "second head, others", threads=self._options.threads),
            self._options.head_training,
        )
        return head

    def _compose(self, matrix: Floats | None, layers: Sequence[Layer]) -> bytes:
        return compose_classifier(
            self._network.graph,
            channels=self._fitted.channels,
            mean=self._network.mean,
            std=self._network.std,
            projection=matrix,
            head=layers,
        )

    def _reference_features(self) -> tuple[str, DeepFeatures]:
        if self._network.module is not None:
            return "torch features in float64", in_torch(self._network.module)
        draft = self._draft(has_head=False, projected=False)
        extractor = extractor_of_classes(self._compose(None, ()), draft, threads=self._options.threads)
        return "the exported graph's features", in_engine(extractor)

    def _draft(self, *, has_head: bool, projected: bool = True) -> facts.ClassifierManifest:
        """All that is known before the first held-out image is scored: thresholds that no score reaches, no parity."""
        options, network = self._options, self._network
        size_px, stored = options.side_px, self._fitted.stored_size or (None, None)
        none_yet = facts.MapThreshold(score=_NO_THRESHOLD)
        kinds: tuple[facts.ScoreKind, ...] = ("mahalanobis", "head") if has_head else ("mahalanobis",)
        names = (FEATURES, LOGITS, HEAD)[: 2 + has_head]
        depth = self._projection.input_dimension
        unprojected = msgspec.structs.replace(self._projection, kind="none", dimension=depth)
        return facts.ClassifierManifest(
            input=facts.Input(
                height=size_px,
                width=size_px,
                channels=self._fitted.channels,
                interpolation=self._fitted.interpolation,
                source_height=stored[0],
                source_width=stored[1],
            ),
            network=facts.Network(
                name=network.name,
                layers=[network.layer],
                weights=network.weights,
                precision="fp32",
                input=INPUT,
                outputs=[facts.Output(name=name, height=1, width=1) for name in names],
                total_stride=size_px,
            ),
            map=facts.Map(height=1, width=1, upsampling="nearest", sigma=0),
            threshold=facts.Threshold(
                false_reject_rate=options.false_reject_rate,
                score=_NO_THRESHOLD,
                calibration_images=len(self._held_out),
            ),
            fit=facts.Fit(
                images=len(self._fitted),
                calibration_images=len(self._held_out),
                group_by=None,
                seed=options.seed,
                sources_sha256=self._fitted.fingerprint,
            ),
            parity=None,
            golden=facts.GoldenFacts(relative_tolerance=_GOLDEN_TOLERANCE),
            projection=self._projection if projected else unprojected,
            gaussian=facts.Gaussian(
                tie="class",
                count=len(self._fitted.classes),
                components=1,
                epsilon=options.statistics.epsilon,
                epsilon_relative=options.statistics.epsilon_relative,
                shrinkage=options.statistics.shrinkage,
                factors=options.statistics.factors,
                block_rows=8,
            ),
            classifier=facts.Classifier(
                classes=list(self._fitted.classes),
                percentile=options.statistics.percentile,
                scores=dict.fromkeys(kinds, none_yet),
                score="mahalanobis",
                loss=network.loss,
                center_weight=network.center_weight,
                epochs=network.epochs,
                best_epoch=network.best_epoch,
                head_images=len(self._anomalies) if has_head and self._anomalies is not None else None,
            ),
        )


def _require_apart(images: LabelledImages, anomalies: ImageSet) -> None:
    """Refuses images of no class that are of another mode than those of the classes, or images of a class as well."""
    if anomalies.channels != images.channels:
        modes = {1: "grey", 3: "in colour"}
        raise InputError(
            f"{anomalies.names[0]}, of no class, is {modes[anomalies.channels]}; {images.names[0]} is "
            f"{modes[images.channels]}: expected all images to be alike"
        )
    found = duplicates(images, anomalies)
    if found:
        of_class, anomaly = found[0]
        raise InputError(
            f"{anomaly}, of no class, is also {of_class}; {len(found)} image{'s' * (len(found) > 1)} of the classes like that: "
            "take them out of either"
        )
