"""Basler cameras, and the emulated ones of PYLON_CAMEMU, through pypylon."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flawline.runtime.cameras.features import (
    CameraOptions,
    FeatureError,
    Features,
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
    from pypylon import genicam, pylon
else:
    pylon = LazyModule("pypylon.pylon", "pip install 'flawline[pylon]'")
    genicam = LazyModule("pypylon.genicam", "pip install 'flawline[pylon]'")

_TICKS_PER_S = 1_000_000_000  # of USB3 Vision
_STATISTICS = {
    "buffer_underruns": "Statistic_Buffer_Underrun_Count",
    "buffers_failed": "Statistic_Failed_Buffer_Count",
    "packets_failed": "Statistic_Failed_Packet_Count",
    "resend_requests": "Statistic_Resend_Request_Count",
    "packets_resent": "Statistic_Resend_Packet_Count",
}


def create(address: str, options: CameraOptions, spec: str) -> Source:
    """A source of a Basler camera, still closed; see `Scheme`."""
    return camera_source(lambda: PylonDevice(address, options, spec), options, spec)


def discover() -> list[FoundCamera]:
    """The Basler cameras that answer.

    Raises:
        MissingExtraError: pypylon is not installed.
        InputError: The library cannot look for cameras.
    """
    with _failures("cameras cannot be looked for"):
        return [_found(info) for info in pylon.TlFactory.GetInstance().EnumerateDevices()]


def _found(info: Any) -> FoundCamera:
    serial = info.GetSerialNumber()
    address = info.GetIpAddress() if info.IsIpAddressAvailable() else ""
    model = f"{info.GetVendorName()} {info.GetModelName()}"
    return FoundCamera(f"pylon:{serial}", model, serial, address, info.GetUserDefinedName())


@contextlib.contextmanager
def _failures(what: str, kind: type[InputError] | type[CameraLostError] = InputError) -> Iterator[None]:
    try:
        yield
    except genicam.GenericException as error:
        raise kind(f"{what}: {first_sentence(error)}") from error


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
        self._ticks_per_s = _TICKS_PER_S
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
        with _failures(f"camera {self._spec} cannot be set up"):
            factory = pylon.TlFactory.GetInstance()
            infos = list(factory.EnumerateDevices())
            index = choose([_found(info) for info in infos], self._address, self._spec)
            self._camera = pylon.InstantCamera(factory.CreateDevice(infos[index]))
            self._camera.Open()
            return self._set_up()

    def start(self) -> None:
        """See `Device`."""
        with _failures(f"camera {self._spec} cannot be started", CameraLostError):
            self._camera.StartGrabbing(pylon.GrabStrategy_OneByOne, pylon.GrabLoop_ProvidedByUser)

    def fetch(self, timeout_s: float) -> CameraFrame | None:
        """See `Device`."""
        with _failures(f"camera {self._spec} is lost", CameraLostError):
            result = self._camera.RetrieveResult(max(1, round(timeout_s * 1e3)), pylon.TimeoutHandling_Return)
            if not result.IsValid():
                if self._camera.IsCameraDeviceRemoved() or not self._camera.IsGrabbing():
                    raise CameraLostError(f"camera {self._spec} is lost: it was removed")
                return None
        camera_ns = result.TimeStamp * 1_000_000_000 // self._ticks_per_s
        if not result.GrabSucceeded():
            return CameraFrame(result.BlockID, camera_ns, None, result.Release, result.ErrorDescription)
        pixels, detail = _pixels(result)
        return CameraFrame(result.BlockID, camera_ns, pixels, result.Release, detail)

    def stop(self, is_lost: bool) -> None:
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
        self._camera.MaxNumBuffer.Value = self._options.buffers
        self._ticks_per_s = _ticks_per_s(features)
        return frame_format(features, self._spec)[1]


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
        try:
            return str(self._nodes.GetNode(name).ToString())
        except genicam.GenericException as error:
            raise FeatureError(str(error)) from error

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


def _ticks_per_s(features: Features) -> int:
    """Of a camera's clock; a camera that does not say, or says 0, counts nanoseconds."""
    with contextlib.suppress(FeatureError):
        ticks = features.get("GevTimestampTickFrequency")
        return int(ticks[:20]) if ticks.isdecimal() and int(ticks[:20]) else _TICKS_PER_S
    return _TICKS_PER_S


def _pixels(result: Any) -> tuple[Image | None, str]:
    """Pixels of a result in RGB order, a view of its buffer; or why there are none. See `CameraFrame`."""
    is_bgr = result.PixelType == pylon.PixelType_BGR8packed
    is_colour = is_bgr or result.PixelType == pylon.PixelType_RGB8packed
    count = 3 if is_colour else int(result.PixelType == pylon.PixelType_Mono8)
    has_stride, stride = result.GetStride()
    form = FrameFormat(result.Height, result.Width, count)
    memory = np.frombuffer(result.GetMemoryView(), np.uint8)
    pixels = view(memory, form, stride if has_stride and stride else form.width * count, is_bgr=is_bgr)
    return pixels, "" if pixels is not None else TOO_SHORT
