"""The errors that Flawline raises on purpose; the commands turn each into one line and exit status 2."""


class FlawlineError(Exception):
    """Something a user can mend. The message says what was received, what was expected and what to do."""


class InputError(FlawlineError):
    """An image, a folder, an option or a frame is not what it must be."""


class BundleError(FlawlineError):
    """A bundle is damaged, malformed or of a format this version does not read."""


class MissingExtraError(FlawlineError, ImportError):
    """An optional library is not installed; the message names the extra to install."""


class ResourceError(FlawlineError):
    """Memory or disk would not suffice for what was asked."""
