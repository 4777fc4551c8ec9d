"""The rules between the fields of a manifest."""

from flawline.runtime.bundle.base import FEATURES, Manifest, variant_files
from flawline.runtime.bundle.fields import Input, Report, Web
from flawline.runtime.bundle.padim import PadimManifest, Projection
from flawline.runtime.bundle.reconstruction import Reconstruction, ReconstructionManifest
from flawline.runtime.images import MAX_PIXELS
from flawline.runtime.map_kinds import SALIENCIES

AnyManifest = PadimManifest | ReconstructionManifest


def broken_rule(manifest: AnyManifest) -> str | None:
    """The first rule that the manifest breaks, as a message; None if it keeps all of them."""
    problem = _check_input(manifest.input) or _check_variants(manifest) or _check_whole(manifest)
    if problem is not None:
        return problem
    for precision in manifest.precisions:
        view = manifest.select(precision)
        problem = _check_outputs(view) or _check_view(view) or _check_facts(view)
        if problem is not None:
            return problem if precision == manifest.network.precision else f"variants.{precision}: {problem}"
    return None


def _check_whole(manifest: AnyManifest) -> str | None:
    if isinstance(manifest, ReconstructionManifest):
        return _check_reconstruction(manifest)
    problem = _check_projection(manifest.projection)
    if problem is None and manifest.web is not None:
        return _check_web(manifest, manifest.web)
    return problem


def _check_view(manifest: AnyManifest) -> str | None:
    if isinstance(manifest, ReconstructionManifest):
        return None
    return _check_gaussian(manifest) or _check_form(manifest)


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


def _check_web(manifest: PadimManifest, web: Web) -> str | None:
    stride = manifest.network.total_stride
    if web.halo % stride or web.ring % stride or web.ring > web.halo:
        return f"web.halo {web.halo} and web.ring {web.ring}; expected multiples of the total stride {stride}, halo >= ring"
    tile = (manifest.input.height - 2 * web.halo, manifest.input.width - 2 * web.halo)
    if min(tile) < 1 or tile[0] % stride or tile[1] % stride:
        return f"a tile of {tile[0]} x {tile[1]} px; expected multiples of the total stride {stride}"
    if (tile[0] + 2 * web.ring) * manifest.map.width != (tile[1] + 2 * web.ring) * manifest.map.height:
        return f"a map of {manifest.map.height} x {manifest.map.width}; expected the proportions of tile and ring"
    if (tile[0] + 2 * web.ring) % manifest.map.height or stride % ((tile[0] + 2 * web.ring) // manifest.map.height):
        return f"a map of {manifest.map.height} rows; expected a stride that divides {stride}"
    if stride % web.binning:
        return f"web.binning is {web.binning}; expected a divisor of the total stride {stride}"
    if any(manifest.select(precision).gaussian.tie == "position" for precision in manifest.precisions):
        return "gaussian.tie is position; expected column or global for a web"
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


def _check_projection(value: Projection) -> str | None:
    if value.dimension > value.input_dimension:
        return f"projection from {value.input_dimension} to {value.dimension} channels; expected no more than come in"
    if value.kind == "none" and value.dimension != value.input_dimension:
        return f"projection none from {value.input_dimension} to {value.dimension} channels; expected equal numbers"
    return None


def _check_gaussian(manifest: PadimManifest) -> str | None:
    tie, count = manifest.gaussian.tie, manifest.gaussian.count
    if manifest.gaussian.lane_px is not None:
        return _check_lanes(manifest, manifest.gaussian.lane_px)
    expected = {"position": manifest.positions, "column": manifest.map.width, "global": 1}[tie]
    if count != expected:
        return f"gaussian.count is {count}; expected {expected} for Gaussians tied by {tie}"
    return None


def _check_lanes(manifest: PadimManifest, lane_px: int) -> str | None:
    tie, count, web = manifest.gaussian.tie, manifest.gaussian.count, manifest.web
    if tie != "column" or web is None:
        return f"gaussian.lane_px is {lane_px} for Gaussians tied by {tie}; expected the columns of a web"
    tile_px = manifest.input.width - 2 * web.halo
    map_stride = (tile_px + 2 * web.ring) // manifest.map.width
    if lane_px < map_stride:
        return f"gaussian.lane_px is {lane_px}; expected at least {map_stride}, a column of the map"
    expected = (tile_px - map_stride) // lane_px + 1
    if count != expected:
        return f"gaussian.count is {count}; expected {expected} lanes of {lane_px} px in a tile of {tile_px} px"
    return None


def _check_form(manifest: PadimManifest) -> str | None:
    form, rank = manifest.gaussian.form, manifest.gaussian.rank
    if (form == "woodbury") != (rank is not None):
        return f"gaussian.rank is {rank} for factors in the form {form}; expected a number for woodbury alone"
    d, block = manifest.projection.dimension, manifest.gaussian.block_rows
    # As many blocks of rows as a triangle has would save nothing, and could be taken for one.
    if rank is not None and -(-rank // block) >= -(-d // block):
        return f"gaussian.rank is {rank}; expected at least a block of {block} rows less than the dimension {d} takes"
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


def _check_reconstruction(manifest: ReconstructionManifest) -> str | None:
    return (
        _check_graph(manifest)
        or _check_maps(manifest)
        or _check_training(manifest.reconstruction)
        or _check_components(manifest)
    )


def _check_graph(manifest: ReconstructionManifest) -> str | None:
    network, frame, fact = manifest.network, manifest.input, manifest.reconstruction
    if manifest.web is not None:
        return "web is there; expected null for a reconstruction detector, which takes frames"
    if manifest.variants:
        return f"variants.{next(iter(manifest.variants))} is there; expected none for a reconstruction detector"
    if network.precision != "fp32":
        return f"network.precision is {network.precision!a}; expected 'fp32' for a reconstruction detector"
    if frame.channels == 3 and frame.layout != "nchw":
        return f"input.layout is {frame.layout!a} for a reconstruction in colour; expected 'nchw'"
    if network.name != fact.architecture:
        return f"network.name is {network.name!a}; expected that of the architecture, {fact.architecture!a}"
    if network.layers != ["reconstruction"] or network.total_stride != 1:
        return (
            f"network.layers {network.layers} of total stride {network.total_stride}; expected ['reconstruction'] and 1"
        )
    names = [output.name for output in network.outputs]
    expected = ["reconstruction", "saliency"] if set(SALIENCIES) & fact.maps.keys() else ["reconstruction"]
    if names != expected:
        return f"network.outputs {names}; expected {expected} for the maps {', '.join(fact.maps)}"
    size = (frame.height, frame.width)
    sizes = {"map": (manifest.map.height, manifest.map.width)}
    sizes |= {f"output {output.name}": (output.height, output.width) for output in network.outputs}
    for name, (height, width) in sizes.items():
        if (height, width) != size:
            return f"{name} of {height} x {width}; expected the input's {size[0]} x {size[1]}"
    return None


def _check_maps(manifest: ReconstructionManifest) -> str | None:
    fact = manifest.reconstruction
    if fact.map not in fact.maps:
        return f"reconstruction.map is {fact.map!a}; expected one of reconstruction.maps, {', '.join(fact.maps)}"
    if manifest.threshold.score != fact.maps[fact.map].score:
        return (
            f"threshold.score is {manifest.threshold.score}, reconstruction.maps.{fact.map}.score is "
            f"{fact.maps[fact.map].score}; expected equal numbers"
        )
    if manifest.map.upsampling != "nearest":
        return f"map.upsampling is {manifest.map.upsampling!a}; expected 'nearest' for a reconstruction detector"
    return None


def _check_training(fact: Reconstruction) -> str | None:
    if (fact.kind == "pca") != (fact.architecture == "pca"):
        return f"reconstruction.architecture is {fact.architecture!a} for the kind {fact.kind!a}"
    facts = {"loss": fact.loss, "epochs": fact.epochs, "best_epoch": fact.best_epoch}
    for name, value in facts.items():
        if (value is None) != (fact.kind == "pca"):
            return f"reconstruction.{name} is {'null' if value is None else ascii(value)} for the kind {fact.kind!a}"
    if fact.best_epoch is not None and fact.epochs is not None and fact.best_epoch > fact.epochs:
        return f"reconstruction.best_epoch is {fact.best_epoch}; expected at most the {fact.epochs} epochs"
    return None


def _check_components(manifest: ReconstructionManifest) -> str | None:
    values = manifest.input.height * manifest.input.width * manifest.input.channels
    components = manifest.reconstruction.components
    if components > values:
        return f"reconstruction.components is {components}; expected at most the {values} values of an image"
    return None
