"""What runs on the device: `Detector.open(bundle)`, then call it with frames."""

from flawline.runtime.classification import Classification
from flawline.runtime.detector import Detector, Result
from flawline.runtime.errors import (
    BundleError,
    DeviceError,
    EngineError,
    FlawlineError,
    InputError,
    MissingExtraError,
    NewerFormatError,
    NotABundleError,
    ResourceError,
)
from flawline.runtime.regions import Region

__all__ = [
    "BundleError",
    "Classification",
    "Detector",
    "DeviceError",
    "EngineError",
    "FlawlineError",
    "InputError",
    "MissingExtraError",
    "NewerFormatError",
    "NotABundleError",
    "Region",
    "ResourceError",
    "Result",
]
