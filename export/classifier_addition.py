"""Adds a precision to the bundle of a classifier: the same images, split as they were, through the network in 8 bits."""

from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from flawline.calibration.class_statistics import ClassOptions
from flawline.calibration.labelled_images import read_labelled_images
from flawline.calibration.shrinkage import Estimator
from flawline.calibration.split import split_classes
from flawline.calibration.statistics import FactorType
from flawline.export import fidelity
from flawline.export.addition import payload_of
from flawline.export.classifier_fitting import ClassImages, FittedClassifier, scored
from flawline.export.classifier_variants import FloatClassifier, fit_classifier_variant, quantised_precision
from flawline.export.converting import running
from flawline.export.fitting import Say
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.bundle.contents import gaussians
from flawline.runtime.classifier_scorer import ClassifierScorer
from flawline.runtime.errors import InputError
from flawline.runtime.precisions import ENGINES, Precision

# Largest difference of a score to what it was when the bundle was fitted, of distances relative to it.
_SAME_SCORE = 1e-3


def add_classifier_precision(
    bundle: bundles.Bundle,
    precision: Precision,
    data: Path,
    out: Path,
    *,
    factors: FactorType | None = None,
    threads: int,
    say: Say = lambda line: None,
) -> bundles.Bundle:
    """Writes a bundle that holds a further precision; the one it was made from stays as it is.

    Args:
        bundle: Of a classifier, its own network in fp32.
        precision: To add.
        data: The images of the classes that the bundle was fitted on.
        out: Folder to make; must not exist.
        factors: Type of the stored factors; as in the bundle if None.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Returns:
        The new bundle, as it was read back.

    Raises:
        InputError: The bundle holds the precision, or no float network, or one that cannot be had in it; the images are not
            those that it was fitted on.
        EngineError: The engine of the precision refuses the network.
        MissingExtraError: That engine is not installed.
        ParityError: The classifier does not score like the float classifier, or calls too many images otherwise.
        ResourceError: Memory or disk would not suffice.
    """
    bundles.require_free(out)
    manifest = bundle.manifest
    if not isinstance(manifest, facts.ClassifierManifest):
        raise InputError(f"{bundle.path} holds no classifier")
    if precision in bundle.precisions:
        raise InputError(f"{bundle.path} holds {precision} already; expected one of the others")
    if manifest.network.precision != "fp32":
        raise InputError(
            f"{bundle.path} holds no fp32 network to start from, only {', '.join(bundle.precisions)}; fit it again"
        )
    of_8_bits = quantised_precision(precision)
    images = _same_images(data, manifest, bundle)
    with running(bundle.path):
        reference = _float_classifier(bundle, manifest, images, factors, threads)
        added = fit_classifier_variant(
            of_8_bits, reference, images, _options(reference.manifest), threads=threads, say=say
        )
    return _write(out, bundle, manifest, of_8_bits, added)


def _same_images(data: Path, manifest: facts.ClassifierManifest, bundle: bundles.Bundle) -> ClassImages:
    """The images of the classes as they were split when the bundle was fitted."""
    of, fit = manifest.input, manifest.fit
    images = read_labelled_images(data, of.height, interpolation=of.interpolation)
    others = InputError(
        f"these {len(images)} images are not those that {bundle.path} was fitted on ({fit.images}, and "
        f"{fit.calibration_images} held out); expected the same as for `flawline fit`"
    )
    if list(images.classes) != manifest.classifier.classes or images.channels != of.channels:
        raise others
    try:
        parts = split_classes(
            images.labels,
            false_reject_rate=manifest.threshold.false_reject_rate,
            calibration_images=fit.calibration_images,
            seed=fit.seed,
        )
    except InputError as error:
        # It speaks of options of `flawline fit`, which were right for the images of the bundle.
        raise others from error
    fitted, held_out = (images.chosen(part) for part in parts)
    if fitted.fingerprint != fit.sources_sha256:
        raise others
    return ClassImages(fitted, held_out)


def _float_classifier(
    bundle: bundles.Bundle,
    manifest: facts.ClassifierManifest,
    images: ClassImages,
    factors: FactorType | None,
    threads: int,
) -> FloatClassifier:
    """What the bundle says of the held-out images, which must be those whose scores it holds."""
    scores: dict[facts.ScoreKind, fidelity.Scores] = {}
    labels: list[str] = []
    for kind in manifest.classifier.scores:
        of_kind = manifest.with_map(kind)
        with ClassifierScorer(
            bundle.features,
            of_kind,
            gaussians(of_kind, bundle.statistics),
            bundle.statistics["class_thresholds"],
            backend=ENGINES["fp32"][0],
            threads=threads,
        ) as scorer:
            found, labels = scored(scorer, images.held_out, f"scoring in fp32, {kind}")
        expected = bundle.statistics[facts.score_tensor(kind)].astype(np.float64)
        scale = expected if kind == "mahalanobis" else 1
        worst = float(np.max(np.abs(np.sort(found) - expected) / scale))
        if not worst <= _SAME_SCORE:
            raise InputError(
                f"the {len(found)} held-out images do not score as those that {bundle.path} was fitted with: largest "
                f"difference {worst:.2g} ({kind}), tolerance {_SAME_SCORE:g}; expected the same images as for `flawline fit`, "
                "on a machine where `flawline verify` passes"
            )
        scores[kind] = fidelity.Scores(found, of_kind.threshold.score)
    model = msgspec.structs.replace(manifest.gaussian, factors=factors or manifest.gaussian.factors)
    return FloatClassifier(
        bundle.features,
        msgspec.structs.replace(manifest, gaussian=model),
        bundle.statistics.get("projection"),
        scores,
        labels,
    )


def _options(manifest: facts.ClassifierManifest) -> ClassOptions:
    model = manifest.gaussian
    return ClassOptions(
        percentile=manifest.classifier.percentile,
        epsilon=model.epsilon,
        epsilon_relative=model.epsilon_relative,
        shrinkage=cast("Estimator", model.shrinkage),
        factors=model.factors,
    )


def _write(
    out: Path,
    bundle: bundles.Bundle,
    own: facts.ClassifierManifest,
    precision: Precision,
    added: FittedClassifier,
) -> bundles.Bundle:
    found = added.manifest
    variant = facts.ClassifierVariant(
        features=bundles.variant_files(precision).features,
        network=found.network,
        gaussian=found.gaussian,
        scores=found.classifier.scores,
        threshold=found.threshold,
        parity=found.parity,
        fidelity=found.fidelity,
        golden=found.golden,
    )
    held = {name: payload_of(bundle.select(name)) for name in own.variants}
    return bundles.write(
        out,
        msgspec.structs.replace(own, format=facts.Format(), variants={**own.variants, precision: variant}),
        *payload_of(bundle),
        variants={**held, precision: added.payload},
    )
