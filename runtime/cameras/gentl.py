"""Cameras of any maker whose GenTL producer, a .cti file, is installed: through harvesters."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta

from flawline.runtime.cameras.features import (
    CHANNELS,
    CameraOptions,
    FeatureError,
    FrameFormat,
    configure,
    first_sentence,
    frame_format,
)
from flawline.runtime.cameras.found import FoundCamera, choose
from flawline.runtime.cameras.frames import TOO_SHORT, CameraFrame, camera_source, view
from flawline.runtime.cameras.source import CameraLostError, Source
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import Image

if TYPE_CHECKING:
    from genicam import genapi, gentl
    from harvesters import core as harvesters
else:
    harvesters = LazyModule("harvesters.core", "pip install 'flawline[gentl]'")
    genapi = LazyModule("genicam.genapi", "pip install 'flawline[gentl]'")
    gentl = LazyModule("genicam.gentl", "pip install 'flawline[gentl]'")

PRODUCERS = "GENICAM_GENTL64_PATH"
"""Variable of the standard: folders of producers, separated by colons."""

_STATISTICS = {"buffer_underruns": "num_underrun", "frames_delivered": "num_delivered"}


class GenTLOptions(CameraOptions, frozen=True, forbid_unknown_fields=True):
    """What a `gentl:` spec may say."""

    producer: Annotated[
        str, Meta(description=f"the maker's .cti file; without it, those that {PRODUCERS} leads to")
    ] = ""


def create(address: str, options: GenTLOptions, spec: str) -> Source:
    """A source of a camera behind a GenTL producer, still closed; see `Scheme`."""
    return camera_source(lambda: GenTLDevice(address, options, spec), options, spec)


def discover() -> list[FoundCamera]:
    """The cameras behind the producers that GENICAM_GENTL64_PATH leads to; none if it leads to none.

    Raises:
        MissingExtraError: harvesters is not installed.
    """
    harvester = harvesters.Harvester()
    try:
        for path in _installed_producers():
            harvester.add_file(str(path))
        harvester.update()
        return [_found(info) for info in harvester.device_info_list]
    finally:
        harvester.reset()


def _installed_producers() -> list[Path]:
    folders = [Path(folder) for folder in os.environ.get(PRODUCERS, "").split(os.pathsep) if folder]
    return sorted(path for folder in folders for path in folder.glob("*.cti"))


def _found(info: Any) -> FoundCamera:
    serial = _asked(info, "serial_number") or _asked(info, "id_")
    model = f"{_asked(info, 'vendor')} {_asked(info, 'model')}"
    return FoundCamera(f"gentl:{serial}", model, serial, _asked(info, "id_"), _asked(info, "user_defined_name"))


def _asked(info: Any, name: str) -> str:
    """A property of a camera; empty if its producer does not tell it, as it need not."""
    with contextlib.suppress(gentl.GenericException):
        return str(getattr(info, name) or "")
    return ""


class GenTLDevice:
    """A camera behind a GenTL producer, see `Device`.

    harvesters gives no incomplete frames away: they are missing by the ids of frames.

    Args:
        address: Serial number, id or user-defined name; `any` for the first that is found.
        options: How to set it up, and its producer.
        spec: The words it was named by, for errors.
    """

    def __init__(self, address: str, options: GenTLOptions, spec: str) -> None:
        self._address = address
        self._options = options
        self._spec = spec
        self._harvester: Any = None
        self._acquirer: Any = None
        self._statistics: dict[str, int] = {}

    @property
    def statistics(self) -> Mapping[str, int]:
        """See `Device`."""
        if self._acquirer is not None and self._acquirer.data_streams:
            for name, attribute in _STATISTICS.items():
                # A producer need not count them.
                with contextlib.suppress(gentl.GenericException, AttributeError):
                    self._statistics[name] = int(getattr(self._acquirer.data_streams[0], attribute))
        return self._statistics

    def open(self) -> FrameFormat:
        """See `Device`."""
        producers = [Path(self._options.producer)] if self._options.producer else _installed_producers()
        for path in producers:
            if not path.is_file():
                raise InputError(
                    f"producer {path} does not exist; expected the .cti file that the camera's maker gives"
                )
        if not producers:
            raise InputError(
                f"camera {self._spec} has no producer; expected producer=FILE.cti in its name, or the folder in {PRODUCERS}"
            )
        self._harvester = harvesters.Harvester()
        with self._failures(InputError, "cannot be set up"):
            for path in producers:
                self._harvester.add_file(str(path))
            self._harvester.update()
            found = [_found(info) for info in self._harvester.device_info_list]
            if not found and self._options.producer:
                raise InputError(f"producer {self._options.producer} cannot be loaded, or has no camera")
            self._acquirer = self._harvester.create(choose(found, self._address, self._spec))
            return self._set_up()

    def start(self) -> None:
        """See `Device`."""
        with self._failures(CameraLostError, "cannot be started"):
            self._acquirer.start()

    def fetch(self, timeout_s: float) -> CameraFrame | None:
        """See `Device`."""
        with self._failures(CameraLostError, "is lost"):
            # For harvesters no time at all means any time.
            buffer = self._acquirer.try_fetch(timeout=max(timeout_s, 1e-3))
            if buffer is None:
                if not self._acquirer.is_acquiring():
                    raise CameraLostError(f"camera {self._spec} is lost: it has stopped")
                return None
            pixels, detail = _pixels(buffer)
            return CameraFrame(buffer.module.frame_id, _time_ns(buffer), pixels, buffer.queue, detail)

    def stop(self, is_lost: bool) -> None:
        """See `Device`."""
        acquirer, harvester, self._acquirer, self._harvester = self._acquirer, self._harvester, None, None
        # Of a camera that is gone nothing can be asked any more, and need not.
        with contextlib.suppress(gentl.GenericException, genapi.GenericException):
            if acquirer is not None:
                acquirer.destroy()
        if harvester is not None:
            harvester.reset()

    def _set_up(self) -> FrameFormat:
        features = GenTLFeatures(self._acquirer.remote_device.node_map)
        configure(features, self._options, self._spec)
        _, form = frame_format(features, self._spec)
        self._acquirer.num_buffers = max(self._options.buffers, self._acquirer.min_num_buffers)
        return form

    @contextlib.contextmanager
    def _failures(self, kind: type[InputError] | type[CameraLostError], what: str) -> Iterator[None]:
        try:
            yield
        except (gentl.GenericException, genapi.GenericException) as error:
            raise kind(f"camera {self._spec} {what}: {first_sentence(error)}") from error


class GenTLFeatures:
    """See `Features`."""

    def __init__(self, node_map: Any) -> None:
        self._node_map = node_map

    def names(self) -> Sequence[str]:
        """See `Features`."""
        return [value.node.name for value in self._node_map.nodes if value.node.is_feature()]

    def choices(self, name: str) -> Sequence[str]:
        """See `Features`."""
        return list(getattr(self._node_map.get_node(name), "symbolics", ()))

    def get(self, name: str) -> str:
        """See `Features`."""
        try:
            return str(self._node_map.get_node(name).to_string())
        except genapi.GenericException as error:
            raise FeatureError(str(error)) from error

    def set(self, name: str, value: str) -> None:
        """See `Features`."""
        node = self._node_map.get_node(name)
        try:
            if isinstance(node, genapi.ICommand):
                node.execute()
            else:
                node.from_string(value)
        except genapi.GenericException as error:
            raise FeatureError(str(error)) from error


def _time_ns(buffer: Any) -> int:
    """Time of a buffer by its producer; 0 if that has none."""
    with contextlib.suppress(gentl.GenericException):
        ticks, per_s = buffer.timestamp, buffer.timestamp_frequency
        return int(ticks * 1_000_000_000 // per_s) if ticks and per_s else 0
    return 0


def _pixels(buffer: Any) -> tuple[Image | None, str]:
    """Pixels of a buffer in RGB order, a view of it; or why there are none. See `CameraFrame`."""
    components = getattr(buffer.payload, "components", ())
    if not components:
        return np.empty((0, 0), np.uint8), f"a payload of type {buffer.payload_type} without an image"
    component = components[0]
    count = CHANNELS.get(component.data_format, 0)
    form = FrameFormat(component.height, component.width, count)
    stride = form.width * count + (component.x_padding or 0)
    is_bgr = component.data_format.startswith("BGR")
    pixels = view(component.data.view(np.uint8), form, stride, is_bgr=is_bgr)
    return pixels, "" if pixels is not None else TOO_SHORT
