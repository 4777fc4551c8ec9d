"""Fields that the manifests of all detectors share, each with its unit and range."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from flawline.runtime.precisions import Precision

MAJOR = 1
MINOR = 5

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


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """The score from which a frame is rejected."""

    false_reject_rate: Annotated[float, Meta(gt=0, lt=1)]
    score: NotNegative
    calibration_images: Count


class MapThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with one kind of map, of a detector that offers several."""

    score: NotNegative
    """The score from which a frame is rejected."""


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
