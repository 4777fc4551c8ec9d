"""Sources by name: `SCHEME:ADDRESS?PARAMETER=VALUE&PARAMETER=VALUE`."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints
from urllib.parse import unquote

import msgspec

from flawline.runtime.cameras import aravis, gentl, pylon, video
from flawline.runtime.cameras.features import CameraOptions
from flawline.runtime.cameras.found import FoundCamera
from flawline.runtime.cameras.recording import open_replay
from flawline.runtime.cameras.replay import ReplayOptions
from flawline.runtime.cameras.source import Source, opened
from flawline.runtime.errors import InputError


class Scheme(NamedTuple):
    """A kind of source.

    Attributes:
        options: What its parameters are, each annotated with its range and a description of what is expected. A
            parameter of type `dict[str, str]`, such as `feature`, collects what is written `feature.NAME=VALUE`.
        create: Makes the source, still closed, from address, options and the whole spec.
        example: A spec that is right, for error messages.
        discover: Finds the cameras of this kind that are there; None if it has no cameras. Raises MissingExtraError
            where the library that would look for them is not installed.
    """

    options: type[msgspec.Struct]
    create: Callable[[str, Any, str], Source]
    example: str
    discover: Callable[[], list[FoundCamera]] | None = None


SCHEMES = {
    "replay": Scheme(
        ReplayOptions,
        open_replay,
        "replay:images?line_rate=20000&block=64&loop=2",
    ),
    "video": Scheme(
        video.VideoOptions,
        video.create,
        "video:web.mkv?line_rate=20000&block=256&loop=2",
        video.discover,
    ),
    "aravis": Scheme(
        aravis.AravisOptions,
        aravis.create,
        "aravis:192.168.1.20?width=4096&block=256&line_rate=20000&packet=9000&feature.ExposureTime=40",
        aravis.discover,
    ),
    "pylon": Scheme(
        CameraOptions,
        pylon.create,
        "pylon:40012345?width=4096&block=256&line_rate=20000&feature.ExposureTime=40",
        pylon.discover,
    ),
    "gentl": Scheme(
        gentl.GenTLOptions,
        gentl.create,
        "gentl:SN42?producer=/opt/maker/producer.cti&width=4096&block=256&feature.ExposureTime=40",
        gentl.discover,
    ),
}


def open_source(spec: str) -> Source:
    """Finds a source by its name and opens it.

    Args:
        spec: `SCHEME:ADDRESS?PARAMETER=VALUE&...`; characters that would be taken for punctuation are written as in a
            URL (`%3F` for a question mark in the address).

    Returns:
        An open source; the caller closes it.

    Raises:
        InputError: The spec is malformed, or what it names does not exist or is not what it must be.
    """
    name, colon, rest = spec.partition(":")
    scheme = SCHEMES.get(name)
    if not colon or scheme is None:
        received = f"has the unknown kind {name!r}" if colon else "has no kind"
        example = next(iter(SCHEMES.values())).example
        raise InputError(f"source {spec!r} {received}; expected one of {', '.join(SCHEMES)}, such as {example}")
    address, question, query = rest.partition("?")
    if not address:
        raise InputError(f"source {spec!r} has no address; expected something such as {scheme.example}")
    parameters = _parameters(spec, query, scheme.example) if question else {}
    return opened(scheme.create(_unquote(address), _options(spec, scheme, parameters), spec))


def _unquote(text: str) -> str:
    """Undoes the escapes of a URL, except those for control characters: `%04d` counts the files of a sequence."""
    return unquote(re.sub("%(?=[01][0-9A-Fa-f])", "%25", text))


def _parameters(spec: str, query: str, example: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise InputError(f"source {spec!r} has {pair!r} among its parameters; expected NAME=VALUE, as in {example}")
        if name in parameters:
            raise InputError(f"source {spec!r} gives {name!r} twice; expected it once")
        parameters[name] = unquote(value)
    return parameters


def _options(spec: str, scheme: Scheme, parameters: dict[str, str]) -> msgspec.Struct:
    known = get_type_hints(scheme.options, include_extras=True)
    values: dict[str, Any] = {}
    for written, text in parameters.items():
        name, dot, member = written.partition(".")
        if name not in known or (dot and not member):
            raise InputError(
                f"source {spec!r} has the unknown parameter {written!r}; expected one of {', '.join(known)}"
            )
        value = {member: text} if dot else text
        try:
            msgspec.convert({name: value}, scheme.options, strict=False)
        except msgspec.ValidationError as error:
            expected = known[name].__metadata__[0].description
            raise InputError(
                f"source {spec!r} has {written}={text}; expected {expected}, as in {scheme.example}"
            ) from error
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return msgspec.convert(values, scheme.options, strict=False)
