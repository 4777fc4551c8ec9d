"""What manifest.json says, as types: every field with its unit and range, and the rules between fields."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from flawline import __version__
from flawline.runtime.bundle import strict_json
from flawline.runtime.errors import BundleError, NewerFormatError
from flawline.runtime.images import MAX_PIXELS

MAJOR = 1
MINOR = 0

FEATURES = "features.onnx"
STATISTICS = "statistics.safetensors"
GOLDEN = "golden.safetensors"
REQUIRED_FILES = (FEATURES, STATISTICS, GOLDEN)

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


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The feature graph."""

    name: Text
    layers: Annotated[list[Text], Meta(min_length=1, max_length=64)]
    weights: Weights
    precision: Literal["fp32"]
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


class Gaussian(msgspec.Struct, frozen=True, kw_only=True):
    """The model of normal."""

    tie: Literal["position", "column", "global"]
    count: Count
    components: Annotated[int, Meta(ge=1, le=1024)]
    epsilon: NotNegative
    epsilon_relative: bool
    """True if epsilon counts in mean feature variances, False if it is added as it is."""
    shrinkage: str | float | None
    factors: Literal["fp16", "fp32"]
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
    parity: dict[str, str | float] | None
    """Scores of the bundle against a reference: its name under "reference", and relative errors."""
    files: dict[FileName, FileEntry] = {}
    """Every other file of the bundle; the writer fills it in."""
    golden: GoldenFacts

    @property
    def positions(self) -> int:
        """Pixels of the anomaly map."""
        return self.map.height * self.map.width


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
        or _check_outputs(manifest)
        or _check_projection(manifest.projection)
        or _check_gaussian(manifest)
        or _check_facts(manifest)
    )
    if problem is not None:
        raise BundleError(f"{where}: {problem}")


def _check_input(value: Input) -> str | None:
    if value.height * value.width > MAX_PIXELS:
        return f"input of {value.height} x {value.width}; expected at most {MAX_PIXELS} pixels"
    if (value.source_height is None) != (value.source_width is None):
        return "input.source_height and input.source_width must both be given or both be null"
    return None


def _check_outputs(manifest: Manifest) -> str | None:
    outputs = manifest.network.outputs
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
    expected = {"position": manifest.positions, "column": manifest.map.width, "global": 1}[tie]
    if count != expected:
        return f"gaussian.count is {count}; expected {expected} for Gaussians tied by {tie}"
    return None


def _check_facts(manifest: Manifest) -> str | None:
    held_out, fitted = manifest.threshold.calibration_images, manifest.fit.calibration_images
    if held_out != fitted:
        return f"threshold.calibration_images is {held_out}, fit.calibration_images is {fitted}; expected equal numbers"
    parity = manifest.parity
    if parity is not None:
        if not isinstance(parity.get("reference"), str):
            return 'parity lacks "reference", the name of what the scores were compared with'
        words = [name for name, value in parity.items() if name != "reference" and isinstance(value, str)]
        if words:
            return f"parity.{words[0]} is a text; expected a number"
    return None
