"""Basler cameras, and the emulated ones of PYLON_CAMEMU, through pypylon."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flawline.runtime.cameras.features import (
    CameraOptions,
    FeatureError,
    channels,
    configure,
    first_sentence,
)
from flawline.runtime.cameras.found import FoundCamera, choose
from flawline.runtime.cameras.frames import CameraFrame, FrameFormat, FrameSource
from flawline.runtime.cameras.reconnecting import ReconnectingSource, opening
from flawline.runtime.cameras.source import CameraLostError, Source
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import Image

if TYPE_CHECKING:
    from pypylon import genicam, pylon
else:
    pylon = LazyModule("pypylon.pylon", "pip install 'flawline[pylon]'")
    genicam = LazyModule("pypylon.genicam", "pip install 'flawline[pylon]'")

_STATISTICS = {
    "buffer_underruns": "Statistic_Buffer_Underrun_Count",
    "buffers_failed": "Statistic_Failed_Buffer_Count",
    "packets_failed": "Statistic_Failed_Packet_Count",
    "resend_requests": "Statistic_Resend_Request_Count",
    "packets_resent": "Statistic_Resend_Packet_Count",
}


def create(address: str, options: CameraOptions, spec: str) -> Source:
    """A source of a Basler camera, still closed; see `Scheme`."""

    def make() -> FrameSource:
        return FrameSource(PylonDevice(address, options, spec), spec, options.line_rate or None)

    return ReconnectingSource(opening(make), spec, longest_pause_s=options.reconnect)


def discover() -> list[FoundCamera]:
    """The Basler cameras that answer.

    Raises:
        MissingExtraError: pypylon is not installed.
    """
    return [_found(info) for info in pylon.TlFactory.GetInstance().EnumerateDevices()]


def _found(info: Any) -> FoundCamera:
    serial = info.GetSerialNumber()
    address = info.GetIpAddress() if info.IsIpAddressAvailable() else ""
    model = f"{info.GetVendorName()} {info.GetModelName()}"
    return FoundCamera(f"pylon:{serial}", model, serial, address, info.GetUserDefinedName())


class PylonDevice:
    """A Basler camera, see `Device`.

    Args:
        address: Serial number, user-defined name or IP address; `any` for the first that is found.
        options: How to set it up.
        spec: The words it was named by, for errors.
    """

    def __init__(self, address: str, options: CameraOptions, spec: str) -> None:
        self._address = address
        self._options = options
        self._spec = spec
        self._camera: Any = None
        self._ticks_per_s = 1_000_000_000
        self._heard_ns = 0
        self._statistics: dict[str, int] = {}

    @property
    def statistics(self) -> Mapping[str, int]:
        """See `Device`."""
        if self._camera is not None and self._camera.IsPylonDeviceAttached():
            for name, feature in _STATISTICS.items():
                # A camera has those of its transport; one that is gone has none any more.
                with contextlib.suppress(genicam.GenericException):
                    self._statistics[name] = int(getattr(self._camera.StreamGrabber, feature).Value)
        return self._statistics

    def open(self) -> FrameFormat:
        """See `Device`."""
        factory = pylon.TlFactory.GetInstance()
        infos = list(factory.EnumerateDevices())
        index = choose([_found(info) for info in infos], self._address, self._spec)
        try:
            self._camera = pylon.InstantCamera(factory.CreateDevice(infos[index]))
            self._camera.Open()
            return self._set_up()
        except genicam.GenericException as error:
            raise InputError(f"camera {self._spec} cannot be set up: {first_sentence(error)}") from error

    def start(self) -> None:
        """See `Device`."""
        try:
            self._camera.StartGrabbing(pylon.GrabStrategy_OneByOne, pylon.GrabLoop_ProvidedByUser)
        except genicam.GenericException as error:
            raise CameraLostError(f"camera {self._spec} cannot be started: {first_sentence(error)}") from error
        self._heard_ns = time.monotonic_ns()

    def fetch(self, timeout_s: float) -> CameraFrame | None:
        """See `Device`."""
        try:
            result = self._camera.RetrieveResult(max(1, round(timeout_s * 1e3)), pylon.TimeoutHandling_Return)
            if not result.IsValid():
                self._require_life()
                return None
        except genicam.GenericException as error:
            raise CameraLostError(f"camera {self._spec} is lost: {first_sentence(error)}") from error
        self._heard_ns = time.monotonic_ns()
        camera_ns = result.TimeStamp * 1_000_000_000 // self._ticks_per_s
        if not result.GrabSucceeded():
            return CameraFrame(result.BlockID, camera_ns, None, result.Release, result.ErrorDescription)
        return CameraFrame(result.BlockID, camera_ns, _pixels(result), result.Release)

    def stop(self) -> None:
        """See `Device`."""
        camera, self._camera = self._camera, None
        if camera is not None:
            # Of a camera that is gone nothing can be asked any more, and need not.
            with contextlib.suppress(genicam.GenericException):
                camera.StopGrabbing()
            with contextlib.suppress(genicam.GenericException):
                camera.Close()
            with contextlib.suppress(genicam.GenericException):
                camera.DestroyDevice()

    def _set_up(self) -> FrameFormat:
        features = PylonFeatures(self._camera)
        configure(features, self._options, self._spec)
        _, count = channels(features, self._spec)
        self._camera.MaxNumBuffer.Value = self._options.buffers
        if "GevTimestampTickFrequency" in features.names():
            self._ticks_per_s = int(features.get("GevTimestampTickFrequency"))
        lines, width = int(features.get("Height")), int(features.get("Width"))
        return FrameFormat(lines, width, count)

    def _require_life(self) -> None:
        if self._camera.IsCameraDeviceRemoved() or not self._camera.IsGrabbing():
            raise CameraLostError(f"camera {self._spec} is lost: it was removed")
        silent_s = (time.monotonic_ns() - self._heard_ns) / 1e9
        if self._options.silence and silent_s > self._options.silence:
            raise CameraLostError(f"camera {self._spec} is lost: it was silent for {silent_s:.1f} s")


class PylonFeatures:
    """See `Features`."""

    def __init__(self, camera: Any) -> None:
        self._nodes = camera.GetNodeMap()

    def names(self) -> Sequence[str]:
        """See `Features`."""
        nodes = [value.GetNode() for value in self._nodes.GetNodes()]
        return [node.GetName() for node in nodes if node.IsFeature()]

    def choices(self, name: str) -> Sequence[str]:
        """See `Features`."""
        return list(getattr(self._nodes.GetNode(name), "Symbolics", ()))

    def get(self, name: str) -> str:
        """See `Features`."""
        return str(self._nodes.GetNode(name).ToString())

    def set(self, name: str, value: str) -> None:
        """See `Features`."""
        node = self._nodes.GetNode(name)
        try:
            if isinstance(node, genicam.ICommand):
                node.Execute()
            else:
                node.FromString(value)
        except genicam.GenericException as error:
            raise FeatureError(str(error)) from error


def _pixels(result: Any) -> Image:
    """Pixels of a result in RGB order, a view of its buffer: uint8 (lines, width[, 3])."""
    is_bgr = result.PixelType == pylon.PixelType_BGR8packed
    is_colour = is_bgr or result.PixelType == pylon.PixelType_RGB8packed
    count = 3 if is_colour else int(result.PixelType == pylon.PixelType_Mono8)
    has_stride, stride = result.GetStride()
    view: Image = np.ndarray(
        (result.Height, result.Width, count),
        np.uint8,
        result.GetMemoryView(),
        strides=(stride if has_stride and stride else result.Width * count, count, 1),
    )
    if count == 1:
        return view[..., 0]
    return view[..., ::-1] if is_bgr else view
