"""What manifest.json says, as types, and how it is read and written: see `fields`, `rules`, and a file per detector."""

import msgspec

from flawline.runtime.bundle import strict_json
from flawline.runtime.bundle.base import (
    FEATURES,
    GOLDEN,
    STATISTICS,
    FileNames,
    Manifest,
    ManifestOfKinds,
    Variant,
    score_tensor,
    variant_files,
)
from flawline.runtime.bundle.classifier import Classifier, ClassifierManifest, ClassifierVariant
from flawline.runtime.bundle.fields import (
    MAJOR,
    MINOR,
    Count,
    Edges,
    FileEntry,
    FileName,
    Fit,
    Format,
    GoldenFacts,
    Input,
    LayerError,
    Map,
    MapThreshold,
    Network,
    Output,
    Quantisation,
    Report,
    Sha256,
    Shading,
    Text,
    Threshold,
    Web,
    Weights,
)
from flawline.runtime.bundle.padim import (
    Gaussian,
    PadimManifest,
    PadimVariant,
    Projection,
)
from flawline.runtime.bundle.reconstruction import (
    Reconstruction,
    ReconstructionManifest,
)
from flawline.runtime.bundle.rules import AnyManifest, broken_rule
from flawline.runtime.errors import BundleError, NewerFormatError
from flawline.runtime.map_kinds import (
    MAP_KINDS,
    RECONSTRUCTION_MAP_KINDS,
    SALIENCIES,
    MapKind,
    ReconstructionMapKind,
    ScoreKind,
)

__all__ = [
    "FEATURES",
    "GOLDEN",
    "MAJOR",
    "MAP_KINDS",
    "MINOR",
    "RECONSTRUCTION_MAP_KINDS",
    "SALIENCIES",
    "STATISTICS",
    "AnyManifest",
    "Classifier",
    "ClassifierManifest",
    "ClassifierVariant",
    "Count",
    "Edges",
    "FileEntry",
    "FileName",
    "FileNames",
    "Fit",
    "Format",
    "Gaussian",
    "GoldenFacts",
    "Input",
    "LayerError",
    "Manifest",
    "ManifestOfKinds",
    "Map",
    "MapKind",
    "MapThreshold",
    "Network",
    "Output",
    "PadimManifest",
    "PadimVariant",
    "Projection",
    "Quantisation",
    "Reconstruction",
    "ReconstructionManifest",
    "ReconstructionMapKind",
    "Report",
    "ScoreKind",
    "Sha256",
    "Shading",
    "Text",
    "Threshold",
    "Variant",
    "Web",
    "Weights",
    "check",
    "decode",
    "encode",
    "score_tensor",
    "variant_files",
]


class _Versioned(msgspec.Struct):
    """The one key whose place and type every version of the format keeps."""

    format: Format


def encode(manifest: Manifest) -> bytes:
    """The bytes of manifest.json: equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(data: bytes, where: str = "manifest.json") -> AnyManifest:
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
        manifest: AnyManifest = msgspec.convert(value, AnyManifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{where}: {error}") from error
    check(manifest, where)
    return manifest


def check(manifest: AnyManifest, where: str = "manifest.json") -> None:
    """Applies the rules between fields.

    Args:
        manifest: Its fields are each of the right type and range.
        where: Name of the file for error messages.

    Raises:
        BundleError: Two fields contradict each other.
    """
    problem = broken_rule(manifest)
    if problem is not None:
        raise BundleError(f"{where}: {problem}")
