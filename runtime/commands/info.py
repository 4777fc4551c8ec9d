"""Says what is in a bundle, after verifying every byte of it, and which engine `auto` means on this machine, and why.

Every engine that computes in a precision of the bundle scores the golden frames. Of those that give their scores the preferred
one is chosen, unless another is clearly faster. --json prints the manifest as it is stored, the bundle's
hash (which names its whole content), its size, and the engines by precision.

  flawline info part.flaw
  flawline info part.flaw --json | jq .manifest.threshold
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flawline.runtime.backends.selection import Candidate
    from flawline.runtime.bundle import (
        AnyManifest,
        Bundle,
        Classifier,
        ClassifierManifest,
        Gaussian,
        PadimManifest,
        Projection,
        ReconstructionManifest,
        Web,
    )
    from flawline.runtime.precisions import Precision

    Engines = Mapping[Precision, Sequence[Candidate]]

_MEANING = {
    "position": "one Gaussian per position of the feature map (aligned objects)",
    "column": "one Gaussian per column of the web",
    "global": "one Gaussian for all positions (stationary texture)",
}
_LABEL_WIDTH = 23
_CLASSES_SHOWN = 20
_LARGE = 1e12
# Smaller ones are roundings of arithmetic, of which the power of ten is told.
_SMALL_SHARE = 1e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="of the engines (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> int:
    """Prints the facts of a bundle."""
    from flawline.runtime.bundle import read
    from flawline.runtime.engines import try_engines

    bundle = read(options.bundle)
    engines = {
        precision: try_engines(bundle.select(precision), threads=options.threads) for precision in bundle.precisions
    }
    sys.stdout.write(as_json(bundle, engines) if options.json else _as_text(bundle, engines))
    return 0


def as_json(bundle: "Bundle", engines: "Engines | None" = None) -> str:
    """The facts of a bundle, and of the engines if they were tried, as one JSON object and a line feed."""
    import msgspec

    facts = {"hash": bundle.hash, "total_bytes": bundle.total_bytes, "manifest": bundle.manifest}
    if engines is not None:
        facts["engines"] = {
            precision: [candidate._asdict() for candidate in candidates] for precision, candidates in engines.items()
        }
    return msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n"


def _as_text(bundle: "Bundle", engines: "Engines") -> str:
    from flawline.runtime.plain_text import plain

    lines = []
    for label, value in (*_rows(bundle), *_engine_rows(engines)):
        # Texts of a bundle are its maker's: no control character of theirs reaches a terminal.
        lines.append(f"{label:<{_LABEL_WIDTH}}{plain(value)}".rstrip())
    return "\n".join(lines) + "\n"


def _engine_rows(engines: "Engines") -> Iterator[tuple[str, str]]:
    for precision, candidates in engines.items():
        for candidate in candidates:
            version = "" if candidate.version is None else f" {candidate.version}"
            yield f"In {precision}", f"{candidate.name}{version}: {candidate.verdict}; {candidate.detail}"


def _rows(bundle: "Bundle") -> Iterator[tuple[str, str]]:
    from flawline.runtime.bundle import ClassifierManifest, PadimManifest

    manifest = bundle.manifest
    version = f"{manifest.format.major}.{manifest.format.minor}"
    yield (
        "Bundle",
        f"{bundle.path}, {_size(bundle.total_bytes)}, format {version}, written by flawline {manifest.flawline}",
    )
    yield "  hash", bundle.hash
    if isinstance(manifest, PadimManifest):
        own_rows = _padim_rows(manifest)
    elif isinstance(manifest, ClassifierManifest):
        own_rows = _classifier_rows(bundle, manifest)
    else:
        own_rows = _reconstruction_rows(manifest)
    yield next(own_rows)
    yield from _network_rows(manifest)
    yield from own_rows
    for name, array in bundle.statistics.items():
        yield "", f"{name:<32}{_size(array.nbytes):>10}  {array.dtype} {' x '.join(map(str, array.shape))}"
    yield from _fit_rows(bundle)
    for precision in bundle.precisions[1:]:
        yield from _variant_rows(bundle.select(precision))
    yield "Files", f"{len(manifest.files)} and the manifest"
    for name, entry in manifest.files.items():
        yield "", f"{name:<32}{_size(entry.size):>10}  sha256 {entry.sha256[:16]}..."


def _network_rows(manifest: "AnyManifest") -> Iterator[tuple[str, str]]:
    network, received = manifest.network, manifest.input
    layers = ", ".join(network.layers)
    gives = "reconstruction" if manifest.detector == "reconstruction" else f"features of {layers}"
    yield "Network", f"{network.name}, {network.precision}, {gives}"
    if network.weights.random:
        yield "  weights", "RANDOM: drawn, not trained. This bundle measures time; its scores mean nothing"
    else:
        yield "  weights", f"{network.weights.origin}, sha256 {network.weights.sha256[:16]}..."
    mode = "grey" if received.channels == 1 else "RGB"
    source = "good images of several sizes"
    if received.source_height is not None:
        source = f"good images of {received.source_height} x {received.source_width} px"
    yield (
        "Input",
        f"{received.height} x {received.width} px {mode} (height x width), {received.interpolation}; {source}",
    )
    outputs = ", ".join(f"{output.name} {output.height} x {output.width}" for output in network.outputs)
    stride = "" if manifest.detector == "classifier" else f"; stride {network.total_stride} px"
    yield "Output", f"{outputs}{stride}"
    if manifest.web is not None:
        yield from _web_rows(manifest, manifest.web)


def _web_rows(manifest: "AnyManifest", web: "Web") -> Iterator[tuple[str, str]]:
    height, width = manifest.input.height - 2 * web.halo, manifest.input.width - 2 * web.halo
    yield "Web", f"strips of {height} lines in tiles of {width} px, with {web.halo} px of context (ring {web.ring} px)"
    pitches = (("across", web.pixel_mm), ("along", web.line_mm))
    known = ", ".join(f"{pitch:g} mm {direction}" for direction, pitch in pitches if pitch is not None)
    yield "  pitch", known or "unknown: positions are in pixels and lines"
    if web.binning > 1:
        yield "  binning", f"the network sees means of {web.binning} x {web.binning} px"
    edges = "not looked for: the whole width is web"
    if web.edges is not None:
        edges = f"found on every line, {web.edges.margin_px} px inside each masked"
    yield "  edges", edges
    shading = "left in"
    if web.shading is not None:
        shading = f"brought to grey level {web.shading.target:g}, what is wider than {web.shading.width_px} px"
    yield "  shading", shading
    flat_field = "none taken out"
    if isinstance(web.flat_field_sha256, str):
        flat_field = f"taken out of every line, sha256 {web.flat_field_sha256[:16]}..."
    yield "  flat field", flat_field


def _padim_rows(manifest: "PadimManifest") -> Iterator[tuple[str, str]]:
    projection, gaussian = manifest.projection, manifest.gaussian
    lane_px = gaussian.lane_px
    meaning = _MEANING[gaussian.tie] if lane_px is None else f"one Gaussian per lane of {lane_px} px of the web"
    yield "Detector", f"{manifest.detector}: {meaning}"
    smoothing = f"smoothed by sigma {manifest.map.sigma:g}" if manifest.map.sigma else "not smoothed"
    yield "Map", f"{manifest.map.height} x {manifest.map.width} positions, {manifest.map.upsampling}, {smoothing}"
    yield from _model_rows(projection, gaussian)


def _model_rows(projection: "Projection", gaussian: "Gaussian") -> Iterator[tuple[str, str]]:
    channels = f"{projection.input_dimension} to {projection.dimension} channels"
    yield "Projection", f"{projection.kind}, {channels}, seed {projection.seed} ({projection.generator})"
    unit = " of the mean feature variance" if gaussian.epsilon_relative else ", absolute"
    shrinkage = "no shrinkage" if gaussian.shrinkage is None else f"shrinkage {gaussian.shrinkage}"
    form = "" if gaussian.rank is None else f", Woodbury form of rank {gaussian.rank}"
    components = f" of {gaussian.components} components" if gaussian.components > 1 else ""
    yield "Gaussians", f"{gaussian.count}{components}, epsilon {gaussian.epsilon:g}{unit}, {shrinkage}{form}"


def _classifier_rows(bundle: "Bundle", manifest: "ClassifierManifest") -> Iterator[tuple[str, str]]:
    fact, count = manifest.classifier, len(manifest.classifier.classes)
    head = ", and a second head" if manifest.has_head else ""
    yield "Detector", f"{manifest.detector}: one Gaussian per class of the deep features{head}"
    shown = ", ".join(fact.classes[:_CLASSES_SHOWN])
    more = f" and {count - _CLASSES_SHOWN} more" if count > _CLASSES_SHOWN else ""
    yield "Classes", f"{count}: {shown}{more}"
    yield "Training", _training(fact)
    if fact.head_images is not None:
        yield "  second head", f"trained with {fact.head_images} images of no class"
    yield from _model_rows(manifest.projection, manifest.gaussian)
    thresholds = bundle.statistics["class_thresholds"]
    percentile = f"percentile {fact.percentile:g} of the distances of its training images"
    yield "  of each class", f"threshold {thresholds.min():.6g} to {thresholds.max():.6g}, {percentile}"
    for kind, threshold in fact.scores.items():
        default = " (default)" if kind == fact.score else ""
        yield "Score", f"{kind}{default}: threshold {threshold.score:.6g}"


def _training(fact: "Classifier") -> str:
    if fact.loss is None:
        return "not known: the network came as an ONNX file"
    return f"{fact.epochs} epochs of {fact.loss} (center weight {fact.center_weight:g}), the weights of epoch {fact.best_epoch}"


def _reconstruction_rows(manifest: "ReconstructionManifest") -> Iterator[tuple[str, str]]:
    fact = manifest.reconstruction
    if fact.kind == "pca":
        yield "Detector", f"{manifest.detector}: from {fact.title} of the good images"
        yield "Choice", fact.chosen
    else:
        yield "Detector", f"{manifest.detector}: by a {fact.architecture} autoencoder with {fact.title}"
        yield "Training", f"{fact.epochs} epochs of {fact.loss}, the weights of epoch {fact.best_epoch}"
    taps = "taps of sum 1" if fact.normalised else "taps of equation 4"
    for kind, threshold in fact.maps.items():
        smoothing = f", sigma {manifest.map.sigma:g} px, {taps}" if kind == "pse" else ""
        default = " (default)" if kind == fact.map else ""
        yield "Map", f"{kind}{default}: threshold {threshold.score:.6g}{smoothing}"


def _fit_rows(bundle: "Bundle") -> Iterator[tuple[str, str]]:
    threshold, fit, parity = bundle.manifest.threshold, bundle.manifest.fit, bundle.manifest.parity
    scores = bundle.calibration_scores
    rate = f"false reject rate {threshold.false_reject_rate:g}"
    unit = "images" if bundle.manifest.web is None else "strips"
    yield "Threshold", f"{threshold.score:.6g}, {rate}, from {threshold.calibration_images} held-out good {unit}"
    yield "  scores", f"{scores[0]:.6g} to {scores[-1]:.6g} on those {unit}"
    groups = "" if fit.group_by is None else f", grouped by {fit.group_by}"
    yield "Fit", f"{fit.images} {unit} and {fit.calibration_images} for the threshold{groups}, seed {fit.seed}"
    yield "  sources", f"sha256 {fit.sources_sha256[:16]}..."
    yield from _report_rows("Parity", parity)
    yield from _sensitivity_rows(bundle.manifest)
    if bundle.manifest.network.precision != "fp32":
        yield from _report_rows("Fidelity", bundle.manifest.fidelity)
    tolerance = bundle.manifest.golden.relative_tolerance
    yield "Golden", f"{len(bundle.golden)} frames, whose scores must be met within {tolerance:g} of their value"


def _variant_rows(bundle: "Bundle") -> Iterator[tuple[str, str]]:
    from flawline.runtime.bundle import ReconstructionManifest

    manifest = bundle.manifest
    if isinstance(manifest, ReconstructionManifest):
        return
    gaussian, threshold = manifest.gaussian, manifest.threshold
    factors = f"{gaussian.factors} factors, {_size(bundle.statistics['factors'].nbytes)}"
    yield f"Also in {manifest.network.precision}", f"threshold {threshold.score:.6g}, {factors}"
    yield from _sensitivity_rows(manifest)
    yield from _report_rows("  fidelity", manifest.fidelity)


def _sensitivity_rows(manifest: "AnyManifest") -> Iterator[tuple[str, str]]:
    quantisation = manifest.network.quantisation
    if quantisation is not None and quantisation.sensitivity:
        worst = max(quantisation.sensitivity, key=lambda layer: layer.relative_error)
        kept = [layer.layer for layer in quantisation.sensitivity if layer.kept_float]
        yield "  8 bits", f"most sensitive layer {worst.layer}, features in error by {worst.relative_error:.1%}"
        yield "    in float", ", ".join(kept) or "no layer for its sensitivity"


def _report_rows(label: str, report: "dict[str, str | float] | None") -> Iterator[tuple[str, str]]:
    if report is None:
        yield label, "not measured"
        return
    figures = (
        figure(name, value)
        for name, value in report.items()
        if not isinstance(value, str) and not name.endswith("tolerance")
    )
    yield label, ", ".join(figures)
    yield "    against", f"{report['reference']}"


def figure(name: str, value: float) -> str:
    """A number of a report with its name: counts whole, correlations and AUROC with their usual decimals, errors as shares."""
    title = name.replace("_", " ")
    if float(value).is_integer() and abs(value) < _LARGE:
        return f"{title} {value:.0f}"
    if name.endswith("correlation"):
        return f"{title} {value:.3f}"
    if name.endswith("auroc"):
        return f"{title} {value:.4f}"
    if "error" in name or name.endswith("drop"):
        return f"{title} {value:.1%}" if abs(value) >= _SMALL_SHARE else f"{title} {value:.1e}"
    return f"{title} {value:.3g}"


def _size(size_bytes: int) -> str:
    """Bytes in units of 10^3 and 10^6."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:.1f} MB"
