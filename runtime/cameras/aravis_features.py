"""Features of a camera behind Aravis."""

import math
from collections.abc import Sequence

from flawline.runtime.cameras.aravis_library import AravisError, library
from flawline.runtime.cameras.features import FeatureError

_MAX_FEATURES = 20_000
_OFTEN_UNLISTED = ("AcquisitionLineRate", "AcquisitionFrameRate")  # in no category of some descriptions
_TRUTHS = {"true": 1, "1": 1, "on": 1, "false": 0, "0": 0, "off": 0}


class AravisFeatures:
    """See `Features`.

    Args:
        device: The library's pointer to an open device.
    """

    def __init__(self, device: int) -> None:
        self._device = device

    def names(self) -> Sequence[str]:
        """See `Features`. A description may name more than the camera has: what it has not is left out."""
        arv = library()
        found: dict[str, None] = {}
        seen, waiting = {"Root"}, ["Root"]
        while waiting and len(seen) < _MAX_FEATURES:
            node = arv.device_get_feature(self._device, waiting.pop().encode())
            for name in arv.members(node) if node and arv.is_a(node, "gc_category") else ():
                member = None if name in seen else arv.device_get_feature(self._device, name.encode())
                seen.add(name)
                if member is None:
                    continue
                if arv.is_a(member, "gc_category"):
                    waiting.append(name)
                elif self._is_implemented(member):
                    found[name] = None
        for name in _OFTEN_UNLISTED:
            node = arv.device_get_feature(self._device, name.encode())
            if node and self._is_implemented(node):
                found[name] = None
        return list(found)

    def choices(self, name: str) -> Sequence[str]:
        """See `Features`."""
        arv = library()
        node = arv.device_get_feature(self._device, name.encode())
        if not node or not arv.is_a(node, "gc_enumeration"):
            return ()
        try:
            return arv.choices(self._device, name)
        except AravisError:
            return ()

    def get(self, name: str) -> str:
        """See `Features`."""
        arv = library()
        node = arv.device_get_feature(self._device, name.encode())
        if not node:
            raise FeatureError("it has no such feature")
        try:
            return (arv.gc_feature_node_get_value_as_string(node) or b"").decode("utf-8", "replace")
        except AravisError as error:
            raise FeatureError(str(error)) from error

    def set(self, name: str, value: str) -> None:
        """See `Features`."""
        arv = library()
        key = name.encode()
        node = arv.device_get_feature(self._device, key)
        try:
            if arv.is_a(node, "gc_command"):
                arv.device_execute_command(self._device, key)
            elif arv.is_a(node, "gc_enumeration"):
                arv.device_set_string_feature_value(self._device, key, value.encode())
            elif arv.is_a(node, "gc_boolean"):
                arv.device_set_boolean_feature_value(self._device, key, _truth(value))
            elif arv.is_a(node, "gc_float"):
                arv.device_set_float_feature_value(self._device, key, _real(value))
            elif arv.is_a(node, "gc_integer"):
                arv.device_set_integer_feature_value(self._device, key, _whole(value))
            else:
                arv.device_set_string_feature_value(self._device, key, value.encode())
        except AravisError as error:
            raise FeatureError(str(error)) from error

    def _is_implemented(self, node: int) -> bool:
        try:
            return bool(library().gc_feature_node_is_implemented(node))
        except AravisError:
            return False


# The library itself takes for 0 what is no number.
def _truth(value: str) -> int:
    if value.lower() not in _TRUTHS:
        raise FeatureError("expected true or false")
    return _TRUTHS[value.lower()]


def _whole(value: str) -> int:
    try:
        number = int(value, 0)
    except ValueError:
        number = 1 << 63
    if not -(1 << 63) <= number < 1 << 63:
        raise FeatureError("expected a whole number")
    return number


def _real(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FeatureError("expected a number")
    return number
