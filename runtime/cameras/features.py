"""Settings of a GenICam camera: what the specs of all libraries share, and how they reach the camera."""

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from flawline.runtime.errors import InputError

CHANNELS = {"Mono8": 1, "RGB8": 3, "RGB8Packed": 3, "BGR8": 3, "BGR8Packed": 3}
"""Pixel formats that can be read, by the names of the standard and by those before it, and their channels."""

_LINE_RATES = ("AcquisitionLineRate", "AcquisitionLineRateAbs")
_FRAME_RATES = ("AcquisitionFrameRate", "AcquisitionFrameRateAbs")
_SWITCHES = ("AcquisitionLineRateEnable", "AcquisitionFrameRateEnable")


class CameraOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the spec of a camera may say; error messages quote the descriptions. 0 leaves a setting as it is."""

    width: Annotated[int, Meta(ge=0, le=65536, description="pixels of a line, up to 65536, 0 as it is")] = 0
    block: Annotated[int, Meta(ge=0, le=65536, description="lines per block, up to 65536, 0 as it is")] = 0
    line_rate: Annotated[
        float, Meta(ge=0, le=1e7, description="lines per second up to 1e7, 0 as the camera is set")
    ] = 0.0
    pixel_format: Annotated[str, Meta(description="a pixel format of 8 bits by its GenICam name, such as Mono8")] = ""
    buffers: Annotated[int, Meta(ge=2, le=4096, description="blocks that the library may hold, 2 to 4096")] = 32
    reconnect: Annotated[
        float,
        Meta(ge=0, le=3600, description="longest pause before a lost camera is opened again, seconds, 0 for never"),
    ] = 10.0
    silence: Annotated[
        float, Meta(ge=0, le=86400, description="seconds without a block that mean a lost camera, 0 for any number")
    ] = 0.0
    feature: Annotated[
        dict[str, str], Meta(description="a feature of the camera, written feature.GENICAM_NAME=VALUE")
    ] = {}


class FrameFormat(NamedTuple):
    """What a camera's frames are, from its start to its end: the shape of an array."""

    lines: int
    width: int
    channels: int


class FeatureError(Exception):
    """A camera does not take or tell a value; the message says why."""


class Features(Protocol):
    """The features of an open camera."""

    def names(self) -> Sequence[str]:
        """Those that it has."""

    def choices(self, name: str) -> Sequence[str]:
        """Values of an enumeration; none for any other kind of feature."""

    def get(self, name: str) -> str:
        """A value.

        Raises:
            FeatureError: The camera has no such feature, or does not tell it.
        """

    def set(self, name: str, value: str) -> None:
        """Sets a value, or executes a command whatever the value.

        Raises:
            FeatureError: The camera does not take it.
        """


def configure(features: Features, options: CameraOptions, spec: str) -> None:
    """Sets a camera up: pixel format, width and height, then the features that were named, in their order, then the rate.

    A camera without a line rate takes blocks at the rate of frames that gives as many lines.

    Args:
        features: Of the camera.
        options: What to set.
        spec: The words that the camera was named by, for errors.

    Raises:
        InputError: The camera lacks a feature or refuses a value.
    """
    known = features.names()
    if options.pixel_format:
        _set(features, known, "PixelFormat", options.pixel_format, spec)
    if options.width:
        _set(features, known, "Width", str(options.width), spec)
    if options.block:
        _set(features, known, "Height", str(options.block), spec)
    # Before the rate: it may depend on an exposure time that is among them.
    for name, value in options.feature.items():
        _set(features, known, name, value, spec)
    if options.line_rate:
        _set_rate(features, known, options.line_rate, spec)


def frame_format(features: Features, spec: str) -> tuple[str, FrameFormat]:
    """Pixel format of a camera that is set up, and the shape of its frames.

    Raises:
        InputError: The format is not among `CHANNELS`, or the camera does not tell.
    """
    name = _get(features, "PixelFormat", spec)
    if name not in CHANNELS:
        offered = [choice for choice in features.choices("PixelFormat") if choice in CHANNELS]
        hint = f"add pixel_format={offered[0]} to its name" if offered else "the camera offers none of them"
        raise InputError(f"camera {spec} sends {name}; expected one of {', '.join(CHANNELS)}: {hint}")
    return name, FrameFormat(_whole(features, "Height", spec), _whole(features, "Width", spec), CHANNELS[name])


def _set_rate(features: Features, known: Sequence[str], line_rate: float, spec: str) -> None:
    rates = [name for name in (*_LINE_RATES, *_FRAME_RATES) if name in known]
    if not rates:
        raise InputError(f"camera {spec} has no line rate; leave line_rate out, or set its own feature by name")
    per_second = line_rate if rates[0] in _LINE_RATES else line_rate / _whole(features, "Height", spec)
    switch = _SWITCHES[rates[0] in _FRAME_RATES]
    if switch in known:
        _set(features, known, switch, "true", spec)
    _set(features, known, rates[0], f"{per_second:g}", spec)


def _get(features: Features, name: str, spec: str) -> str:
    try:
        return features.get(name)
    except FeatureError as error:
        raise InputError(f"camera {spec} does not tell its {name}: {first_sentence(error)}") from error


def _whole(features: Features, name: str, spec: str) -> int:
    """A size that a camera tells, above 0."""
    text = _get(features, name, spec)
    if not text.isdecimal() or not int(text[:20]):
        raise InputError(f"camera {spec} says that its {name} is {text[:20]!r}; expected a whole number above 0")
    return int(text[:20])


def _set(features: Features, known: Sequence[str], name: str, value: str, spec: str) -> None:
    if name not in known:
        similar = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
        raise InputError(f"camera {spec} has no feature {name}{hint}")
    try:
        features.set(name, value)
    except FeatureError as error:
        choices = features.choices(name)
        reason = f"expected one of {', '.join(choices)}" if choices else first_sentence(error)
        raise InputError(f"camera {spec} refuses {name}={value}; {reason}") from error


def first_sentence(error: Exception) -> str:
    """What a GenICam library says without where in its sources it says so, in one line."""
    words = re.split(r" : \w+Exception thrown| \(Message from", str(error))[0]
    return " ".join(words.split()).rstrip(".: ")
