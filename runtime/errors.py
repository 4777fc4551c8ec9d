"""The errors that Flawline raises on purpose; the commands turn each into one line and exit status 2."""


class FlawlineError(Exception):
    """Something a user can mend. The message says what was received, what was expected and what to do."""


class InputError(FlawlineError):
    """An image, a folder, an option or a frame is not what it must be."""


class BundleError(FlawlineError):
    """A bundle cannot be used. Those that are none of the kinds below are damaged: hash, length, header or content."""


class NotABundleError(BundleError):
    """What was named is no bundle at all, or the system does not let this process read it."""


class NewerFormatError(BundleError):
    """A bundle is of a format that only a newer version reads."""


class EngineError(BundleError):
    """An engine refuses a bundle's graph, which is as it was written."""


class MissingExtraError(FlawlineError, ImportError):
    """An optional library is not installed; the message names the extra to install."""


class ResourceError(FlawlineError):
    """Memory or disk would not suffice for what was asked."""


class DeviceError(FlawlineError):
    """A GPU or its driver is not what is needed, or has failed."""
