"""What manifest.json says of every detector, and the files that it speaks of."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from flawline import __version__
from flawline.runtime.bundle.fields import (
    FileEntry,
    FileName,
    Fit,
    Format,
    GoldenFacts,
    Input,
    Map,
    MapThreshold,
    Network,
    Report,
    Text,
    Threshold,
    Web,
)
from flawline.runtime.errors import InputError
from flawline.runtime.map_kinds import MapKind
from flawline.runtime.precisions import Precision

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


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The same detector with its network in a further precision: what then differs. See `Manifest` for the fields."""

    features: FileName
    """Name of the file that holds the feature graph; a precision that only engines make shares another's."""
    network: Network
    threshold: Threshold
    parity: Report | None
    fidelity: Report | None
    golden: GoldenFacts


_M = TypeVar("_M", bound="Manifest")
_K = TypeVar("_K", bound="ManifestOfKinds")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What manifest.json says of every detector. Keys that this version does not know are ignored.

    Each kind of detector adds its own; the key `detector` says which it is.
    """

    format: Format = Format()
    flawline: Text = __version__
    """Version that wrote the bundle."""
    input: Input
    network: Network
    map: Map
    threshold: Threshold
    fit: Fit
    web: Web | None = None
    """Of a detector for an endless web; null for one of pictures."""
    parity: Report | None
    """Scores, and distances by the packed factors, against the textbook formula on the same features: "reference" names
    it, the rest are numbers."""
    fidelity: Report | None = None
    """Scores against those of the float detector, where the network is in another precision; likewise."""
    variants: Mapping[Precision, Variant] = {}
    """Further precisions."""
    files: dict[FileName, FileEntry] = {}
    """Every other file of the bundle; the writer fills it in."""
    golden: GoldenFacts

    @property
    def detector(self) -> str:
        """The kind of the detector."""
        return str(self.__struct_config__.tag)

    @property
    def score_tensor(self) -> str:
        """Name of the tensor with the scores of the calibration images."""
        return "calibration_scores"

    @property
    def positions(self) -> int:
        """Pixels of the anomaly map."""
        return self.map.height * self.map.width

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions of the network that the bundle holds, its own first."""
        return (self.network.precision, *self.variants)

    def select(self: _M, precision: Precision) -> _M:
        """The manifest with a variant's fields in place of its own, and no variants.

        Raises:
            InputError: The bundle does not hold that precision.
        """
        if precision == self.network.precision:
            return self
        if precision not in self.variants:
            raise InputError(
                f"the bundle holds no network in {precision}; expected {' or '.join(self.precisions)}"
                f"{self._how_to_add(precision)}"
            )
        return msgspec.structs.replace(self, variants={}, **self._fields_of(self.variants[precision]))

    def file_names(self, precision: Precision) -> FileNames:
        """Names of the files of a precision that the bundle holds."""
        if precision == self.network.precision:
            return FileNames(FEATURES, STATISTICS, GOLDEN)
        return variant_files(precision, self.variants[precision].features)

    def _fields_of(self, variant: Variant) -> dict[str, Any]:
        """What a variant puts in place of the manifest's own."""
        fields = msgspec.structs.asdict(variant)
        del fields["features"]
        return fields

    def _how_to_add(self, precision: Precision) -> str:
        return ""


class ManifestOfKinds(Manifest, frozen=True, kw_only=True):
    """Of a detector that offers several kinds of anomaly map, each with a threshold and calibration scores of its own."""

    kind_key: ClassVar[str]
    """Where manifest.json says which is in use."""
    kinds_key: ClassVar[str]
    """Where it says which there are."""

    @property
    def kind(self) -> MapKind:
        """The one in use."""
        kind: MapKind = self._at(self.kind_key)
        return kind

    @property
    def kinds(self) -> Mapping[MapKind, MapThreshold]:
        """All that the bundle offers."""
        kinds: Mapping[MapKind, MapThreshold] = self._at(self.kinds_key)
        return kinds

    @property
    def score_tensor(self) -> str:
        """Name of the tensor with the scores of the calibration images by the map in use."""
        return score_tensor(self.kind)

    def with_map(self: _K, kind: MapKind) -> _K:
        """The same detector with another of its kinds of map.

        Raises:
            InputError: It does not offer that kind.
        """
        if kind not in self.kinds:
            raise InputError(f"the bundle offers no map '{kind}'; expected {' or '.join(self.kinds)}")
        threshold = msgspec.structs.replace(self.threshold, score=self.kinds[kind].score)
        owner, field = self.kind_key.split(".")
        chosen = msgspec.structs.replace(getattr(self, owner), **{field: kind})
        return msgspec.structs.replace(self, threshold=threshold, **{owner: chosen})

    def _at(self, key: str) -> Any:
        """What manifest.json has at a key of two words."""
        owner, field = key.split(".")
        return getattr(getattr(self, owner), field)


def score_tensor(kind: MapKind) -> str:
    """Name of the tensor with the scores of the calibration images by that map."""
    return f"calibration_scores.{kind.replace('-', '_')}"
