"""Cameras that were found, and the choice of one of them by an address."""

from collections.abc import Sequence
from typing import NamedTuple

from flawline.runtime.errors import InputError


class FoundCamera(NamedTuple):
    """A camera that answered when its kind was looked for.

    Attributes:
        spec: Names it to `open_source`.
        model: Vendor and model, as it says them.
        serial: Serial number; empty if it says none.
        address: Network address or path of its device; empty if there is none.
        name: That a user gave it; empty if nobody did.
    """

    spec: str
    model: str
    serial: str
    address: str = ""
    name: str = ""


def choose(cameras: Sequence[FoundCamera], wanted: str, spec: str) -> int:
    """Picks a camera.

    Args:
        cameras: Those that were found.
        wanted: Serial number, address or name; `any` for the first.
        spec: The words that the camera was named by, for errors.

    Returns:
        Index of the camera.

    Raises:
        InputError: None is the one.
    """
    for index, camera in enumerate(cameras):
        if wanted == "any" or wanted in (camera.serial, camera.address, camera.name):
            return index
    there = ", ".join(camera.spec for camera in cameras) or "no camera of this kind at all"
    raise InputError(f"camera {spec} does not answer; there is {there}: see `flawline camera list`")
