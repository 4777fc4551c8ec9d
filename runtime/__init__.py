"""What runs on the device: `Detector.open(bundle)`, then call it with frames."""

from flawline.runtime.detector import Detector, Result
from flawline.runtime.errors import BundleError, FlawlineError, InputError, MissingExtraError, ResourceError
from flawline.runtime.regions import Region

__all__ = [
    "BundleError",
    "Detector",
    "FlawlineError",
    "InputError",
    "MissingExtraError",
    "Region",
    "ResourceError",
    "Result",
]
