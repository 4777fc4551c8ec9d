"""The flat field that was taken out of good web, and whether another one is it."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from flawline.runtime.bundle.manifest import Web
from flawline.runtime.errors import InputError
from flawline.runtime.web.flat_field import FlatFieldCorrector, load


class KnownFlatField(NamedTuple):
    """A flat field that can be told from others.

    Attributes:
        corrector: Makes what takes it out of lines of a shape, (width,) or (width, 3); InputError if it is of others.
        sha256: Of the file.
    """

    corrector: Callable[[tuple[int, ...]], FlatFieldCorrector]
    sha256: str


def read_flat_field(path: Path | None) -> KnownFlatField | None:
    """Reads a flat field; none of None.

    Raises:
        InputError: The file is missing, damaged or no flat field.
    """
    if path is None:
        return None
    # First, since it refuses what is too large to be read.
    corrector = partial(FlatFieldCorrector, load(path))
    return KnownFlatField(corrector, hashlib.sha256(path.read_bytes()).hexdigest())


def require_same_flat_field(web: Web, given: KnownFlatField | None, bundle: Path) -> None:
    """Refuses to read good web otherwise than for the fit of a bundle.

    Args:
        web: Of the bundle.
        given: Flat field now, if any.
        bundle: Its folder, for the message.

    Raises:
        InputError: There was another one, or one then and none now, or the other way round.
    """
    is_fitted = isinstance(web.flat_field_sha256, str)
    if is_fitted and given is None:
        raise InputError(f"{bundle} was fitted with a flat field; expected --flat-field with the same file")
    if not is_fitted and given is not None:
        raise InputError(f"{bundle} was fitted without a flat field; expected no --flat-field")
    if given is not None and given.sha256 != web.flat_field_sha256:
        raise InputError(f"{bundle} was fitted with another flat field; expected --flat-field with the same file")
