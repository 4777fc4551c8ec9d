"""What manifest.json says, as types: every field with its unit and range, and the rules between fields."""

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from flawline import __version__
from flawline.runtime.bundle import strict_json
from flawline.runtime.errors import BundleError, InputError, NewerFormatError
from flawline.runtime.images import MAX_PIXELS
from flawline.runtime.precisions import Precision

MAJOR = 1
MINOR = 3

FEATURES = "features.onnx"
STATISTICS = "statistics.safetensors"
GOLDEN = "golden.safetensors"


class FileNames(NamedTuple):
    """The files of one precision."""

    features: str
    statistics: str
    golden: str


def variant_files(precision: Precision, features: str | None = None) -> FileNames:
    """Names of the files of a variant; the feature graph may be one that the bundle holds already."""
    own = [name.replace(".", f".{precision}.") for name in (FEATURES, STATISTICS, GOLDEN)]
    return FileNames(features or own[0], own[1], own[2])


Side = Annotated[int, Meta(ge=1, le=1 << 20)]
Count = Annotated[int, Meta(ge=1, le=1 << 31)]
Seed = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
FileName = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,127}\Z")]
NotNegative = Annotated[float, Meta(ge=0)]


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """Version of the format: a newer major is refused, a newer minor only adds keys."""

    major: Annotated[int, Meta(ge=1)] = MAJOR
    minor: Annotated[int, Meta(ge=0)] = MINOR


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """The network's input, in pixels, and how a frame becomes it."""

    height: Side
    width: Side
    channels: Literal[1, 3]
    """1 grey, 3 RGB; frames of the other kind are refused, never converted in silence."""
    layout: Literal["nhwc", "nchw"] = "nhwc"
    """Order of the axes of the network's input; frames are always (height, width) or (height, width, 3)."""
    interpolation: Literal["area", "linear"]
    source_height: Side | None = None
    """Size of the good images if all were alike."""
    source_width: Side | None = None


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Where the network's weights come from."""

    origin: Text
    sha256: Sha256
    random: bool
    """True if the weights were drawn, not trained: such a bundle measures time and detects nothing."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One feature map of the graph: a tensor (frames, dimension, height, width)."""

    name: Text
    height: Side
    width: Side


class LayerError(msgspec.Struct, frozen=True, kw_only=True):
    """What quantising one layer alone does to the feature maps."""

    layer: Text
    relative_error: NotNegative
    """Root of the squared error over that of the squared features, the largest of the outputs."""
    kept_float: bool


class Quantisation(msgspec.Struct, frozen=True, kw_only=True):
    """How a network came to 8 bits."""

    calibration_images: Count
    """Good images from which the ranges of activations were taken."""
    sensitivity: list[LayerError] = []


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The feature graph."""

    name: Text
    layers: Annotated[list[Text], Meta(min_length=1, max_length=64)]
    weights: Weights
    precision: Precision
    quantisation: Quantisation | None = None
    """Of 8-bit precisions."""
    input: Text
    """Name of the graph's uint8 input (frames, height, width, channels)."""
    outputs: Annotated[list[Output], Meta(min_length=1, max_length=16)]
    """Finest first; the finest has the size of the anomaly map."""
    total_stride: Count
    """Input pixels by which a frame can be moved so that every feature map moves by whole positions."""


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """How `input_dimension` feature channels became `dimension`."""

    kind: Literal["gaussian", "orthogonal", "sparse", "select", "none"]
    seed: Seed
    input_dimension: Count
    dimension: Annotated[int, Meta(ge=1, le=1 << 14)]
    generator: Literal["philox4x64"]


class Map(msgspec.Struct, frozen=True, kw_only=True):
    """The anomaly map."""

    height: Side
    width: Side
    upsampling: Literal["bilinear", "nearest"]
    sigma: Annotated[float, Meta(ge=0, le=1000)]
    """Standard deviation of the smoothing, in map pixels; 0 for none."""


class Edges(msgspec.Struct, frozen=True, kw_only=True):
    """How the two edges of the web are found, line by line; what lies outside is masked."""

    margin_px: Annotated[int, Meta(ge=0, le=1 << 16)]
    """Pixels inside each edge, such as a selvedge, that are masked as well."""


class Shading(msgspec.Struct, frozen=True, kw_only=True):
    """How slow changes of brightness are taken out."""

    target: Annotated[float, Meta(gt=0, le=255)]
    """Brightness that the web is brought to everywhere, grey levels."""
    width_px: Annotated[int, Meta(ge=1, le=1 << 16)]
    """What changes over more pixels than these is shading."""


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a detector one of an endless web, scored at its own resolution; `input` then is a window of the web.

    A window is a tile with `halo` pixels of context on all four sides. The feature graph leaves its height and width open,
    and gives maps of the tile with `ring` pixels around it.
    """

    halo: Annotated[int, Meta(ge=1, le=1 << 14)]
    """A multiple of the total stride; at least the radius of the network's receptive field and `ring`."""
    ring: Annotated[int, Meta(ge=0, le=1 << 14)]
    """A multiple of the total stride: neighbours for the upsampling of coarser maps."""
    pixel_mm: Annotated[float, Meta(gt=0)] | None = None
    """Distance of neighbouring pixels of the good web, if known; a web of another pitch is refused."""
    line_mm: Annotated[float, Meta(gt=0)] | None = None
    """Travel of the good web from line to line, if known."""
    binning: Annotated[int, Meta(ge=1, le=64)] = 1
    """Pixels along each axis whose mean is one for the network; the graph does that, and its stride is in pixels of the web."""
    edges: Edges | None = None
    shading: Shading | None = None
    flat_field_sha256: Sha256 | msgspec.UnsetType = msgspec.UNSET
    """Hash of the file of the flat field that was taken out of the good web, as it must be of any other; unset for none."""


class Gaussian(msgspec.Struct, frozen=True, kw_only=True):
    """The model of normal."""

    tie: Literal["position", "column", "global"]
    lane_px: Count | None = None
    """Pixels across the web whose columns share a model; null for a model of each column's own."""
    count: Count
    components: Annotated[int, Meta(ge=1, le=1024)]
    epsilon: NotNegative
    epsilon_relative: bool
    """True if epsilon counts in mean feature variances, False if it is added as it is."""
    shrinkage: str | float | None
    factors: Literal["fp16", "fp32", "int8"]
    form: Literal["triangle", "woodbury"] = "triangle"
    """Whether factors are W = L^-1, or R of `rank` rows: distance^2 = scale^2 (||z||^2 - ||R z||^2)."""
    rank: Count | None = None
    """Rows of R; null for triangles."""
    block_rows: Literal[8]


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """The score from which a frame is rejected."""

    false_reject_rate: Annotated[float, Meta(gt=0, lt=1)]
    score: NotNegative
    calibration_images: Count


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of the fit, so that it can be repeated."""

    images: Count
    calibration_images: Count
    group_by: str | None
    seed: Seed
    sources_sha256: Sha256


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Length and hash of another file of the bundle."""

    size: Annotated[int, Meta(ge=1, le=1 << 42)]
    sha256: Sha256


class GoldenFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How near to the golden scores a device must come."""

    relative_tolerance: Annotated[float, Meta(gt=0, lt=1)]


Report = dict[str, str | float]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The same detector with its network in a further precision: what then differs. See `Manifest` for the fields."""

    features: FileName
    """Name of the file that holds the feature graph; a precision that only engines make shares another's."""
    network: Network
    gaussian: Gaussian
    threshold: Threshold
    parity: Report | None
    fidelity: Report | None
    golden: GoldenFacts


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of manifest.json. Keys that this version does not know are ignored."""

    format: Format = Format()
    flawline: Text = __version__
    """Version that wrote the bundle."""
    detector: Literal["padim"]
    input: Input
    network: Network
    projection: Projection
    map: Map
    gaussian: Gaussian
    threshold: Threshold
    fit: Fit
    web: Web | None = None
    """Of a detector for an endless web; null for one of pictures."""
    parity: Report | None
    """Scores, and distances by the packed factors, against the textbook formula on the same features: "reference" names
    it, the rest are numbers."""
    fidelity: Report | None = None
    """Scores against those of the float detector, where the network is in another precision; likewise."""
    variants: dict[Precision, Variant] = {}
    """Further precisions."""
    files: dict[FileName, FileEntry] = {}
    """Every other file of the bundle; the writer fills it in."""
    golden: GoldenFacts

    @property
    def positions(self) -> int:
        """Pixels of the anomaly map."""
        return self.map.height * self.map.width

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions of the network that the bundle holds, its own first."""
        return (self.network.precision, *self.variants)

    def select(self, precision: Precision) -> "Manifest":
        """The manifest with a variant's fields in place of its own, and no variants.

        Raises:
            InputError: The bundle does not hold that precision.
        """
        if precision == self.network.precision:
            return self
        if precision not in self.variants:
            more = (
                f"add it with `flawline export BUNDLE --precision {precision} --images GOOD_DIR --out BUNDLE`"
                if "fp32" in self.precisions
                else "fit the product again, in fp32, from which others are made"
            )
            raise InputError(
                f"the bundle holds no network in {precision}; expected {' or '.join(self.precisions)}, or {more}"
            )
        chosen = msgspec.structs.asdict(self.variants[precision])
        del chosen["features"]
        return msgspec.structs.replace(self, variants={}, **chosen)

    def file_names(self, precision: Precision) -> FileNames:
        """Names of the files of a precision that the bundle holds."""
        if precision == self.network.precision:
            return FileNames(FEATURES, STATISTICS, GOLDEN)
        return variant_files(precision, self.variants[precision].features)


class _Versioned(msgspec.Struct):
    """The one key whose place and type every version of the format keeps."""

    format: Format


def encode(manifest: Manifest) -> bytes:
    """The bytes of manifest.json: equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(data: bytes, where: str = "manifest.json") -> Manifest:
    """Reads manifest.json.

    Args:
        data: Its bytes.
        where: Name of the file for error messages.

    Returns:
        The manifest, whose fields agree with each other.

    Raises:
        NewerFormatError: Of a newer major version.
        BundleError: Malformed, of a wrong type or range, or in contradiction with itself.
    """
    value = strict_json.parse(data, where)
    try:
        version = msgspec.convert(value, _Versioned).format
        if version.major > MAJOR:
            newer = f"{version.major}.{version.minor}"
            raise NewerFormatError(f"{where} is of format {newer}, this version reads format {MAJOR}: update flawline")
        manifest = msgspec.convert(value, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{where}: {error}") from error
    check(manifest, where)
    return manifest


def check(manifest: Manifest, where: str = "manifest.json") -> None:
    """Applies the rules between fields.

    Args:
        manifest: Its fields are each of the right type and range.
        where: Name of the file for error messages.

    Raises:
        BundleError: Two fields contradict each other.
    """
    problem = (
        _check_input(manifest.input)
        or _check_projection(manifest.projection)
        or _check_variants(manifest)
        or (_check_web(manifest, manifest.web) if manifest.web is not None else None)
    )
    if problem is not None:
        raise BundleError(f"{where}: {problem}")
    for precision in manifest.precisions:
        view = manifest.select(precision)
        problem = _check_outputs(view) or _check_gaussian(view) or _check_form(view) or _check_facts(view)
        if problem is not None:
            within = "" if precision == manifest.network.precision else f"variants.{precision}: "
            raise BundleError(f"{where}: {within}{problem}")


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


def _check_web(manifest: Manifest, web: Web) -> str | None:
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


def _check_gaussian(manifest: Manifest) -> str | None:
    tie, count = manifest.gaussian.tie, manifest.gaussian.count
    if manifest.gaussian.lane_px is not None:
        return _check_lanes(manifest, manifest.gaussian.lane_px)
    expected = {"position": manifest.positions, "column": manifest.map.width, "global": 1}[tie]
    if count != expected:
        return f"gaussian.count is {count}; expected {expected} for Gaussians tied by {tie}"
    return None


def _check_lanes(manifest: Manifest, lane_px: int) -> str | None:
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


def _check_form(manifest: Manifest) -> str | None:
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
