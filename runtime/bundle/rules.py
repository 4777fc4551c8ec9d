"""The rules between the fields of a manifest: those of every detector, and the way to those of each."""

from flawline.runtime.bundle import classifier_rules, padim_rules, reconstruction_rules
from flawline.runtime.bundle.base import FEATURES, Manifest, ManifestOfKinds, variant_files
from flawline.runtime.bundle.classifier import ClassifierManifest
from flawline.runtime.bundle.fields import Input, Report
from flawline.runtime.bundle.padim import PadimManifest
from flawline.runtime.bundle.reconstruction import ReconstructionManifest
from flawline.runtime.images import MAX_PIXELS

AnyManifest = PadimManifest | ReconstructionManifest | ClassifierManifest


def broken_rule(manifest: AnyManifest) -> str | None:
    """The first rule that the manifest breaks, as a message; None if it keeps all of them."""
    problem = _check_input(manifest.input) or _check_variants(manifest) or _check_detector(manifest)
    if problem is not None:
        return problem
    for precision in manifest.precisions:
        view = manifest.select(precision)
        problem = _check_outputs(view) or _check_kinds(view) or _check_model(view) or _check_facts(view)
        if problem is not None:
            return problem if precision == manifest.network.precision else f"variants.{precision}: {problem}"
    return None


def _check_detector(manifest: AnyManifest) -> str | None:
    if isinstance(manifest, ReconstructionManifest):
        return reconstruction_rules.check(manifest)
    if isinstance(manifest, ClassifierManifest):
        return classifier_rules.check(manifest)
    return padim_rules.check(manifest)


def _check_model(manifest: AnyManifest) -> str | None:
    """Of what variants have of their own."""
    if isinstance(manifest, ReconstructionManifest):
        return None
    if isinstance(manifest, ClassifierManifest):
        return classifier_rules.check_model(manifest)
    return padim_rules.check_model(manifest)


def _check_variants(manifest: Manifest) -> str | None:
    for precision, variant in manifest.variants.items():
        if precision == manifest.network.precision:
            return f"variants.{precision} is the precision of the bundle itself"
        if variant.network.precision != precision:
            return f"variants.{precision}.network.precision is {variant.network.precision!a}; expected {precision!a}"
        own = {variant_files(other).features for other in manifest.variants}
        held = {other.features for other in manifest.variants.values()} & own
        if variant.features not in {FEATURES, variant_files(precision).features, *held}:
            return (
                f"variants.{precision}.features is {variant.features!a}; expected {variant_files(precision).features!a}"
            )
    return None


def _check_input(value: Input) -> str | None:
    if value.height * value.width > MAX_PIXELS:
        return f"input of {value.height} x {value.width}; expected at most {MAX_PIXELS} pixels"
    if (value.source_height is None) != (value.source_width is None):
        return "input.source_height and input.source_width must both be given or both be null"
    return None


def _check_outputs(manifest: Manifest) -> str | None:
    outputs = manifest.network.outputs
    precision, quantisation = manifest.network.precision, manifest.network.quantisation
    if (quantisation is not None) != precision.startswith("int8"):
        return f"network.quantisation is {'there' if quantisation else 'null'} for a network in {precision}"
    names = [output.name for output in outputs]
    if len(set(names)) != len(names):
        return f"network.outputs {names} name a tensor twice"
    size = (manifest.map.height, manifest.map.width)
    if size[0] * size[1] > MAX_PIXELS:
        return f"map of {size[0]} x {size[1]}; expected at most {MAX_PIXELS} positions"
    finest = (outputs[0].height, outputs[0].width)
    if finest != size:
        return f"network.outputs[0] is {finest[0]} x {finest[1]}; expected the map's {size[0]} x {size[1]}"
    for output in outputs[1:]:
        if output.height > size[0] or output.width > size[1]:
            return f"output {output.name!a} of {output.height} x {output.width} is finer than the map"
    return None


def _check_kinds(manifest: Manifest) -> str | None:
    if not isinstance(manifest, ManifestOfKinds):
        return None
    offered = ", ".join(manifest.kinds)
    if manifest.kind not in manifest.kinds:
        return f"{manifest.kind_key} is {manifest.kind!a}; expected one of {manifest.kinds_key}, {offered}"
    expected = manifest.kinds[manifest.kind].score
    if manifest.threshold.score != expected:
        return (
            f"threshold.score is {manifest.threshold.score}, {manifest.kinds_key}.{manifest.kind}.score is "
            f"{expected}; expected equal numbers"
        )
    return None


def _check_facts(manifest: Manifest) -> str | None:
    held_out, fitted = manifest.threshold.calibration_images, manifest.fit.calibration_images
    if held_out != fitted:
        return f"threshold.calibration_images is {held_out}, fit.calibration_images is {fitted}; expected equal numbers"
    return _check_report("parity", manifest.parity) or _check_report("fidelity", manifest.fidelity)


def _check_report(key: str, report: Report | None) -> str | None:
    if report is not None:
        if not isinstance(report.get("reference"), str):
            return f'{key} lacks "reference", the name of what the scores were compared with'
        words = [name for name, value in report.items() if name != "reference" and isinstance(value, str)]
        if words:
            return f"{key}.{words[0]} is a text; expected a number"
    return None
