"""libaravis, which speaks GigE Vision and USB3 Vision, called by ctypes: no build, and no binding that has to fit it."""

import ctypes
import functools
from collections.abc import Callable
from ctypes import (
    CDLL,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_int,
    c_int64,
    c_size_t,
    c_uint,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

from flawline.runtime.errors import MissingExtraError

LIBRARY = "libaravis-0.8.so.0"
INSTALL = "sudo apt-get install libaravis-0.8-0"

STATUSES = {
    0: "complete",
    1: "no packet came",
    2: "its packets came too late",
    3: "packets are missing",
    4: "packets carry a wrong number",
    5: "it is larger than the camera said",
    6: "it is not over yet",
    7: "it was broken off",
    8: "it is no image",
}
"""What has become of a buffer, by the library's number."""

_CONNECT_SWAPPED = 2

# Result and arguments; those in the second table report failure by a GError at the end of their arguments.
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "update_device_list": (None, ()),
    "get_n_devices": (c_uint, ()),
    "get_device_id": (c_char_p, (c_uint,)),
    "get_device_vendor": (c_char_p, (c_uint,)),
    "get_device_model": (c_char_p, (c_uint,)),
    "get_device_serial_nbr": (c_char_p, (c_uint,)),
    "get_device_address": (c_char_p, (c_uint,)),
    "camera_get_device": (c_void_p, (c_void_p,)),
    "camera_is_gv_device": (c_int, (c_void_p,)),
    "camera_gv_set_stream_options": (None, (c_void_p, c_int)),
    "gv_device_is_controller": (c_int, (c_void_p,)),
    "device_get_feature": (c_void_p, (c_void_p, c_char_p)),
    "device_set_range_check_policy": (None, (c_void_p, c_int)),
    "gc_category_get_features": (c_void_p, (c_void_p,)),
    "gc_category_get_type": (c_size_t, ()),
    "gc_command_get_type": (c_size_t, ()),
    "gc_enumeration_get_type": (c_size_t, ()),
    "gc_boolean_get_type": (c_size_t, ()),
    "gc_float_get_type": (c_size_t, ()),
    "gc_integer_get_type": (c_size_t, ()),
    "stream_push_buffer": (None, (c_void_p, c_void_p)),
    "stream_timeout_pop_buffer": (c_void_p, (c_void_p, c_uint64)),
    "stream_get_info_uint64_by_name": (c_uint64, (c_void_p, c_char_p)),
    "buffer_new_full": (c_void_p, (c_size_t, c_void_p, c_void_p, c_void_p)),
    "buffer_get_status": (c_int, (c_void_p,)),
    "buffer_get_payload_type": (c_int, (c_void_p,)),
    "buffer_get_frame_id": (c_uint64, (c_void_p,)),
    "buffer_set_frame_id": (None, (c_void_p, c_uint64)),
    "buffer_get_timestamp": (c_uint64, (c_void_p,)),
    "buffer_get_system_timestamp": (c_uint64, (c_void_p,)),
    "buffer_get_data": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "buffer_get_image_width": (c_int, (c_void_p,)),
    "buffer_get_image_height": (c_int, (c_void_p,)),
    "buffer_get_image_padding": (None, (c_void_p, POINTER(c_int), POINTER(c_int))),
    "buffer_get_image_pixel_format": (c_uint32, (c_void_p,)),
}
_FALLIBLE: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "camera_new": (c_void_p, (c_char_p,)),
    "camera_get_payload": (c_uint, (c_void_p,)),
    "camera_create_stream": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "camera_start_acquisition": (None, (c_void_p,)),
    "camera_stop_acquisition": (None, (c_void_p,)),
    "camera_gv_set_packet_size": (None, (c_void_p, c_int)),
    "camera_gv_auto_packet_size": (c_uint, (c_void_p,)),
    "device_execute_command": (None, (c_void_p, c_char_p)),
    "device_set_boolean_feature_value": (None, (c_void_p, c_char_p, c_int)),
    "device_set_integer_feature_value": (None, (c_void_p, c_char_p, c_int64)),
    "device_set_float_feature_value": (None, (c_void_p, c_char_p, c_double)),
    "device_set_string_feature_value": (None, (c_void_p, c_char_p, c_char_p)),
    "device_dup_available_enumeration_feature_values_as_strings": (
        POINTER(c_char_p),
        (c_void_p, c_char_p, POINTER(c_uint)),
    ),
    "gc_feature_node_is_implemented": (c_int, (c_void_p,)),
    "gc_feature_node_get_value_as_string": (c_char_p, (c_void_p,)),
}


class AravisError(Exception):
    """The library, or the camera behind it, refuses; the message says why, in its words."""


class _GError(Structure):
    _fields_ = (("domain", c_uint32), ("code", c_int), ("message", c_char_p))


class _List(Structure):
    _fields_ = (("data", c_char_p), ("next", c_void_p))


class Aravis:
    """The library's functions, without their prefix `arv_`; those that can fail raise AravisError.

    Raises:
        MissingExtraError: The library is not installed.
    """

    def __init__(self) -> None:
        try:
            self._aravis = CDLL(LIBRARY)
            self._gobject = CDLL("libgobject-2.0.so.0")
            self._glib = CDLL("libglib-2.0.so.0")
        except OSError as error:
            raise MissingExtraError(f"{LIBRARY} cannot be loaded ({error}); install it: {INSTALL}") from error
        self._glib.g_error_free.argtypes = [c_void_p]
        self._glib.g_free.argtypes = [c_void_p]
        self._gobject.g_object_unref.argtypes = [c_void_p]
        self._gobject.g_type_check_instance_is_a.argtypes = [c_void_p, c_size_t]
        connect = self._gobject.g_signal_connect_data
        connect.argtypes = [c_void_p, c_char_p, c_void_p, POINTER(c_int), c_void_p, c_int]
        connect.restype = ctypes.c_ulong

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _FUNCTIONS and name not in _FALLIBLE:
            raise AttributeError(name)
        function = getattr(self._aravis, f"arv_{name}")
        if name in _FUNCTIONS:
            function.restype, function.argtypes = _FUNCTIONS[name]
        else:
            function = self._checked(function, *_FALLIBLE[name])
        setattr(self, name, function)
        return function  # type: ignore[no-any-return]

    def is_a(self, instance: int, kind: str) -> bool:
        """Whether an object is of a type, such as `gc_command`."""
        return bool(self._gobject.g_type_check_instance_is_a(instance, getattr(self, f"{kind}_get_type")()))

    def count_control_lost(self, device: int, count: c_int) -> None:
        """Counts how often a device is lost from now on, without any Python in the library's threads.

        Args:
            device: The library's pointer to it.
            count: Rises; it must live until the camera's last `unref`.
        """
        increment = ctypes.cast(self._glib.g_atomic_int_inc, c_void_p)
        self._gobject.g_signal_connect_data(device, b"control-lost", increment, byref(count), None, _CONNECT_SWAPPED)

    def set_property(self, instance: int, name: str, value: int) -> None:
        """Sets a property of an object that is an integer, an enumeration or a truth."""
        self._gobject.g_object_set(c_void_p(instance), name.encode(), c_int(value), c_void_p(None))

    def unref(self, instance: int) -> None:
        """Gives an object up."""
        self._gobject.g_object_unref(instance)

    def members(self, category: int) -> list[str]:
        """Names of the features in a category."""
        names, item = [], self.gc_category_get_features(category)
        while item:
            entry = _List.from_address(item)
            names.append(text(entry.data))
            item = entry.next
        return names

    def choices(self, device: int, name: str) -> list[str]:
        """Values of an enumeration."""
        count = c_uint()
        values = self.device_dup_available_enumeration_feature_values_as_strings(device, name.encode(), byref(count))
        try:
            return [text(values[index]) for index in range(count.value)]
        finally:
            self._glib.g_free(values)

    def _checked(self, function: Any, result: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        function.restype, function.argtypes = result, (*arguments, POINTER(POINTER(_GError)))

        def call(*values: Any) -> Any:
            error = POINTER(_GError)()
            value = function(*values, byref(error))
            if error:
                message = text(error.contents.message)
                self._glib.g_error_free(error)
                raise AravisError(message)
            return value

        return call


@functools.cache
def library() -> Aravis:
    """The library, loaded when it is first asked for.

    Raises:
        MissingExtraError: It is not installed.
    """
    return Aravis()


def text(words: bytes | None) -> str:
    """What a camera says of itself, as one printable line."""
    decoded = (words or b"").decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in decoded).split())
