"""The rules between the fields of the manifest of a classifier."""

from flawline.runtime.bundle.classifier import Classifier, ClassifierManifest
from flawline.runtime.bundle.padim_rules import check_form, check_projection


def check(manifest: ClassifierManifest) -> str | None:
    """The first rule that the whole manifest breaks, as a message; None if it keeps all of them."""
    return (
        _check_classes(manifest.classifier)
        or _check_training(manifest.classifier)
        or _check_head(manifest)
        or _check_map(manifest)
        or _check_variants(manifest)
        or check_projection(manifest.projection)
    )


def check_model(manifest: ClassifierManifest) -> str | None:
    """Likewise of the manifest in one precision."""
    return (
        _check_network(manifest)
        or _check_gaussian(manifest)
        or check_form(manifest.gaussian, manifest.projection.dimension)
    )


def _check_classes(fact: Classifier) -> str | None:
    seen: set[str] = set()
    for name in fact.classes:
        if name in seen:
            return f"classifier.classes names {name[:80]!a} twice; expected every class once"
        seen.add(name)
    return None


def _check_training(fact: Classifier) -> str | None:
    if "mahalanobis" not in fact.scores:
        return "classifier.scores lacks 'mahalanobis'; expected it, and 'head' where there is a second head"
    facts = {"center_weight": fact.center_weight, "epochs": fact.epochs, "best_epoch": fact.best_epoch}
    for name, value in facts.items():
        if (value is None) != (fact.loss is None):
            known, of = ("null" if value is None else value), ("null" if fact.loss is None else ascii(fact.loss))
            return f"classifier.{name} is {known}, classifier.loss is {of}; expected all of the training or nothing"
    if fact.best_epoch is not None and fact.epochs is not None and fact.best_epoch > fact.epochs:
        return f"classifier.best_epoch is {fact.best_epoch}; expected at most the {fact.epochs} epochs"
    if fact.head_images is not None and "head" not in fact.scores:
        return f"classifier.head_images is {fact.head_images}; expected null without a second head"
    return None


def _check_head(manifest: ClassifierManifest) -> str | None:
    of = {"classifier": manifest.classifier.scores}
    of |= {f"variants.{precision}": variant.scores for precision, variant in manifest.variants.items()}
    for where, scores in of.items():
        head = scores.get("head")
        if head is not None and head.score > 1:
            return f"{where}.scores.head.score is {head.score:g}; expected a probability, 0 to 1"
    return None


def _check_map(manifest: ClassifierManifest) -> str | None:
    if manifest.web is not None:
        return "web is there; expected null for a classifier, which takes frames"
    of = manifest.map
    if (of.height, of.width, of.sigma, of.upsampling) != (1, 1, 0, "nearest"):
        return (
            f"map of {of.height} x {of.width}, sigma {of.sigma:g}, {of.upsampling}; expected 1 x 1, sigma 0, nearest "
            "for a classifier"
        )
    return None


def _check_variants(manifest: ClassifierManifest) -> str | None:
    own = manifest.classifier.scores
    for precision, variant in manifest.variants.items():
        if variant.scores.keys() != own.keys():
            offered = ", ".join(variant.scores) or "none"
            return f"variants.{precision}.scores are {offered}; expected those of the bundle, {', '.join(own)}"
    return None


def _check_network(manifest: ClassifierManifest) -> str | None:
    network, scores = manifest.network, manifest.classifier.scores
    if network.precision != "fp32" and not network.precision.startswith("int8"):
        return f"network.precision is {network.precision!a}; expected 'fp32' or one of 8 bits for a classifier"
    if len(network.layers) != 1:
        return f"network.layers are {len(network.layers)}; expected one, that of the deep features"
    names = [output.name for output in network.outputs]
    expected = ["features", "logits", *["head"] * manifest.has_head]
    if names != expected:
        return f"network.outputs {names}; expected {expected} for the scores {', '.join(scores)}"
    for output in network.outputs:
        if (output.height, output.width) != (1, 1):
            return f"output {output.name} of {output.height} x {output.width}; expected 1 x 1"
    return None


def _check_gaussian(manifest: ClassifierManifest) -> str | None:
    of, classes = manifest.gaussian, len(manifest.classifier.classes)
    if of.tie != "class" or of.lane_px is not None:
        lanes = "" if of.lane_px is None else f" with lanes of {of.lane_px} px"
        return f"gaussian.tie is {of.tie}{lanes}; expected class for a classifier"
    if (of.count, of.components) != (classes, 1):
        return f"{of.count} Gaussians of {of.components} components; expected {classes} of 1, one per class"
    return None
