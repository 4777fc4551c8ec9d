"""GigE Vision and USB3 Vision cameras of any maker, through Aravis: pixels go from the network into arrays of our own."""

import contextlib
import ctypes
import functools
import ipaddress
import time
from collections.abc import Iterator, Mapping
from typing import Annotated

import numpy as np
from msgspec import Meta

from flawline.runtime.cameras.aravis_features import AravisFeatures
from flawline.runtime.cameras.aravis_library import STATUSES, AravisError, library, text
from flawline.runtime.cameras.features import CameraOptions, FrameFormat, configure, first_sentence, frame_format
from flawline.runtime.cameras.found import FoundCamera, choose
from flawline.runtime.cameras.frames import TOO_SHORT, CameraFrame, camera_source, view
from flawline.runtime.cameras.source import CameraLostError, Source
from flawline.runtime.errors import InputError
from flawline.runtime.images import Image

_COMPLETE = 0
_IMAGES = (1, 5)  # payloads of one image, the second with chunks of data behind it
_NO_ID = (1 << 64) - 1  # that no camera gives
_CHECK_RANGES = 1
_NO_PACKET_SOCKET = 1
_FORMATS = {"Mono8": 0x01080001, "RGB8": 0x02180014, "BGR8": 0x02180015}  # as they are numbered on the wire
_MAX_SIDE = 65536
_MAX_BUFFERED_BYTES = 4 << 30
_MAX_SOCKET_BYTES = 64 << 20
_MAX_EXTRA_BYTES = 1 << 20  # beside the pixels of a frame: chunks of data
_STATISTICS = {
    "buffer_underruns": b"n_underruns",
    "packets_received": b"n_received_packets",
    "packets_missing": b"n_missing_packets",
    "packets_ignored": b"n_ignored_packets",
    "resend_requests": b"n_resend_requests",
    "packets_resent": b"n_resent_packets",
}


class AravisOptions(CameraOptions, frozen=True, forbid_unknown_fields=True):
    """What an `aravis:` spec may say beside the settings of all cameras."""

    packet: Annotated[
        int,
        Meta(ge=0, le=65535, description="bytes of a network packet, such as 1500 or 9000, 0 for what gets through"),
    ] = 0
    resend: Annotated[bool, Meta(description="true or false: whether missing packets are asked for again")] = True
    packet_socket: Annotated[
        bool, Meta(description="true or false: whether packets are taken from the card in bulk, where that is allowed")
    ] = True


def create(address: str, options: AravisOptions, spec: str) -> Source:
    """A source of a GigE Vision or USB3 Vision camera, still closed; see `Scheme`."""
    return camera_source(lambda: AravisDevice(address, options, spec), options, spec)


def discover() -> list[FoundCamera]:
    """The GigE Vision and USB3 Vision cameras that answer within a second.

    Raises:
        MissingExtraError: The library is not installed.
    """
    return [camera for camera, _ in _look()]


def _look() -> list[tuple[FoundCamera, bytes]]:
    """Cameras, and the names by which the library opens them."""
    arv = library()
    arv.update_device_list()
    found = []
    for index in range(arv.get_n_devices()):
        serial, address = text(arv.get_device_serial_nbr(index)), text(arv.get_device_address(index))
        model = f"{text(arv.get_device_vendor(index))} {text(arv.get_device_model(index))}"
        camera = FoundCamera(f"aravis:{serial or address}", model, serial, address)
        found.append((camera, arv.get_device_id(index) or b""))
    return found


class AravisDevice:
    """A GigE Vision or USB3 Vision camera, see `Device`.

    Args:
        address: IP address, also one beyond a router; or serial number, or `any` for the first that is found.
        options: How to set it up.
        spec: The words it was named by, for errors.
    """

    def __init__(self, address: str, options: AravisOptions, spec: str) -> None:
        self._address = address
        self._options = options
        self._spec = spec
        self._camera = 0
        self._stream = 0
        self._arrays: dict[int, Image] = {}  # by the library's buffers, which write into them
        self._times_lost = ctypes.c_int()
        self._format = FrameFormat(0, 0, 0)
        self._pixel_format = ""
        self._statistics = {"frames_without_leader": 0}

    @property
    def statistics(self) -> Mapping[str, int]:
        """See `Device`."""
        if self._stream:
            arv = library()
            for name, info in _STATISTICS.items():
                self._statistics[name] = arv.stream_get_info_uint64_by_name(self._stream, info)
        return self._statistics

    def open(self) -> FrameFormat:
        """See `Device`."""
        arv = library()
        name = self._find()
        with self._failures("does not answer"):
            self._camera = arv.camera_new(name)
        with self._failures("cannot be set up"):
            device = arv.camera_get_device(self._camera)
            arv.count_control_lost(device, self._times_lost)
            if arv.camera_is_gv_device(self._camera) and not arv.gv_device_is_controller(device):
                raise InputError(f"camera {self._spec} is controlled by another program; close that first")
            self._set_up(device)
        return self._format

    def start(self) -> None:
        """See `Device`."""
        try:
            library().camera_start_acquisition(self._camera)
        except AravisError as error:
            raise CameraLostError(f"camera {self._spec} cannot be started: {first_sentence(error)}") from error

    def fetch(self, timeout_s: float) -> CameraFrame | None:
        """See `Device`."""
        end_ns = time.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            left_us = max(0, end_ns - time.monotonic_ns()) // 1000
            buffer = library().stream_timeout_pop_buffer(self._stream, left_us)
            if not buffer:
                if self._times_lost.value:
                    raise CameraLostError(f"camera {self._spec} is lost: it does not answer any more")
                return None
            if library().buffer_get_frame_id(buffer) != _NO_ID:
                return self._frame(buffer)
            # What would tell which frame it is never came: the id of the next one tells that this one is missing.
            self._statistics["frames_without_leader"] += 1
            self._push(buffer)

    def stop(self, is_lost: bool) -> None:
        """See `Device`."""
        stream, camera, self._stream, self._camera = self._stream, self._camera, 0, 0
        if not camera:
            return
        arv = library()
        if stream and not is_lost:
            with contextlib.suppress(AravisError):
                arv.camera_stop_acquisition(camera)
        if stream:
            arv.unref(stream)
        arv.unref(camera)
        self._arrays.clear()

    def _find(self) -> bytes:
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv4Address(self._address)).encode()
        found = _look()
        return found[choose([camera for camera, _ in found], self._address, self._spec)][1]

    def _set_up(self, device: int) -> None:
        arv = library()
        arv.device_set_range_check_policy(device, _CHECK_RANGES)
        features = AravisFeatures(device)
        configure(features, self._options, self._spec)
        self._pixel_format, self._format = frame_format(features, self._spec)
        is_gv = bool(arv.camera_is_gv_device(self._camera))
        if is_gv and self._options.packet:
            arv.camera_gv_set_packet_size(self._camera, self._options.packet)
        elif is_gv:
            arv.camera_gv_auto_packet_size(self._camera)
        if is_gv and not self._options.packet_socket:
            arv.camera_gv_set_stream_options(self._camera, _NO_PACKET_SOCKET)
        payload = self._checked_payload()
        self._stream = arv.camera_create_stream(self._camera, None, None)
        if is_gv:
            arv.set_property(self._stream, "packet-resend", self._options.resend)
            # Of use without packet sockets; the system gives no more than net.core.rmem_max.
            arv.set_property(self._stream, "socket-buffer-size", min(8 * payload, _MAX_SOCKET_BYTES))
        for _ in range(self._options.buffers):
            # Written to now: pages that the system hands out later would come in the middle of a frame.
            array = np.full(payload, 0, np.uint8)
            buffer = arv.buffer_new_full(payload, array.ctypes.data, None, None)
            self._arrays[buffer] = array
            self._push(buffer)

    def _push(self, buffer: int) -> None:
        # The library leaves the id of the last use where the packet that would tell the new one is lost.
        library().buffer_set_frame_id(buffer, _NO_ID)
        library().stream_push_buffer(self._stream, buffer)

    def _checked_payload(self) -> int:
        """Bytes of a frame as the camera says, which must fit its size."""
        lines, width, count = self._format
        payload = int(library().camera_get_payload(self._camera))
        if not (0 < lines <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
            raise InputError(f"camera {self._spec} says that it sends {width} x {lines} px; expected up to {_MAX_SIDE}")
        pixels = lines * width * count
        if not pixels <= payload <= 2 * pixels + _MAX_EXTRA_BYTES:
            raise InputError(
                f"camera {self._spec} says that a frame has {payload} bytes; expected {pixels} or a few more"
            )
        if payload * self._options.buffers > _MAX_BUFFERED_BYTES:
            raise InputError(
                f"camera {self._spec} would need {self._options.buffers} buffers of {payload} bytes; "
                f"expected {_MAX_BUFFERED_BYTES >> 30} GiB at most: add a smaller block or fewer buffers to its name"
            )
        return payload

    def _frame(self, buffer: int) -> CameraFrame:
        arv = library()
        frame_id = arv.buffer_get_frame_id(buffer)
        pixels, why = None, ""
        if (status := arv.buffer_get_status(buffer)) != _COMPLETE:
            why = STATUSES.get(status, f"its status is {status}")
        elif change := self._change(buffer):
            pixels, why = np.empty((0, 0), np.uint8), change
        elif (pixels := self._pixels(buffer)) is None:
            why = TOO_SHORT
        detail = f"frame {frame_id}: {why}" if why else ""
        camera_time_ns = arv.buffer_get_timestamp(buffer) & (2**63 - 1)
        # Stamped by the time of day when the first packet came; that may be set, and the host's other clock may not.
        begun_ns = arv.buffer_get_system_timestamp(buffer) + time.monotonic_ns() - time.time_ns()
        release = functools.partial(self._push, buffer)
        return CameraFrame(frame_id, camera_time_ns, pixels, release, detail, max(0, begun_ns))

    def _change(self, buffer: int) -> str:
        """What a complete frame is other than those before it; empty if it is like them."""
        arv = library()
        kind = arv.buffer_get_payload_type(buffer)
        if kind not in _IMAGES:
            return f"a payload of type {kind}; expected an image"
        pixel_format = arv.buffer_get_image_pixel_format(buffer)
        if pixel_format != _FORMATS[self._pixel_format.removesuffix("Packed")]:
            return f"pixel format 0x{pixel_format:08x}; expected {self._pixel_format}, as when the stream began"
        lines, width = arv.buffer_get_image_height(buffer), arv.buffer_get_image_width(buffer)
        if (lines, width) != self._format[:2]:
            expected = f"{self._format.lines} lines of {self._format.width} px"
            return f"{lines} lines of {width} px; expected {expected}, as when the stream began"
        return ""

    def _pixels(self, buffer: int) -> Image | None:
        """Pixels of a buffer of the agreed format in RGB order, a view of its array: uint8 (lines, width[, 3]).

        None if the pixels are not where they should be.
        """
        arv = library()
        _, width, count = self._format
        size, padding, below = ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
        arv.buffer_get_image_padding(buffer, ctypes.byref(padding), ctypes.byref(below))
        arv.buffer_get_data(buffer, ctypes.byref(size))
        memory, stride = self._arrays[buffer][: size.value], width * count + padding.value
        return view(memory, self._format, stride, is_bgr=self._pixel_format.startswith("BGR"))

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except AravisError as error:
            raise InputError(f"camera {self._spec} {what}: {first_sentence(error)}") from error
