"""The bundle: a folder that holds a detector whole. FORMAT.md, beside this file, is its specification."""

from flawline.runtime.bundle.contents import Golden
from flawline.runtime.bundle.manifest import (
    FileEntry,
    Fit,
    Format,
    Gaussian,
    GoldenFacts,
    Input,
    Manifest,
    Map,
    Network,
    Output,
    Projection,
    Threshold,
    Weights,
)
from flawline.runtime.bundle.reader import Bundle, read
from flawline.runtime.bundle.writer import require_free, write

__all__ = [
    "Bundle",
    "FileEntry",
    "Fit",
    "Format",
    "Gaussian",
    "Golden",
    "GoldenFacts",
    "Input",
    "Manifest",
    "Map",
    "Network",
    "Output",
    "Projection",
    "Threshold",
    "Weights",
    "read",
    "require_free",
    "write",
]
