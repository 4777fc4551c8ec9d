"""The bundle: a folder that holds a detector whole. FORMAT.md, beside this file, is its specification."""

from flawline.runtime.bundle.contents import Golden
from flawline.runtime.bundle.manifest import (
    FileEntry,
    Fit,
    Format,
    Gaussian,
    GoldenFacts,
    Input,
    LayerError,
    Manifest,
    Map,
    Network,
    Output,
    Projection,
    Quantisation,
    Threshold,
    Variant,
    Weights,
    variant_files,
)
from flawline.runtime.bundle.reader import Bundle, read
from flawline.runtime.bundle.writer import Payload, require_free, write

__all__ = [
    "Bundle",
    "FileEntry",
    "Fit",
    "Format",
    "Gaussian",
    "Golden",
    "GoldenFacts",
    "Input",
    "LayerError",
    "Manifest",
    "Map",
    "Network",
    "Output",
    "Payload",
    "Projection",
    "Quantisation",
    "Threshold",
    "Variant",
    "Weights",
    "read",
    "require_free",
    "variant_files",
    "write",
]
