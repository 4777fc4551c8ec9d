"""The wire format of Protocol Buffers, as far as ONNX files take it; the numbers of fields are those of `onnx.proto`."""

from collections.abc import Iterator
from typing import Final, NamedTuple

MODEL_GRAPH: Final = 7
MODEL_OPSET: Final = 8
MODEL_FUNCTION: Final = 25
OPSET_VERSION: Final = 2
GRAPH_NODE: Final = 1
GRAPH_INITIALIZER: Final = 5
GRAPH_INPUT: Final = 11
GRAPH_OUTPUT: Final = 12
GRAPH_VALUE_INFO: Final = 13
NODE_INPUT: Final = 1
NODE_OUTPUT: Final = 2
NODE_ATTRIBUTE: Final = 5
ATTRIBUTE_GRAPH: Final = 6
ATTRIBUTE_GRAPHS: Final = 11
VALUE_NAME: Final = 1
TENSOR_NAME: Final = 8

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: Of the field.
        value: An integer, or the bytes of anything else.
        raw: The whole field as it is written, number and length included.
    """

    number: int
    value: int | memoryview
    raw: memoryview

    @property
    def message(self) -> memoryview:
        """The bytes.

        Raises:
            ValueError: It is an integer.
        """
        if isinstance(self.value, int):
            raise ValueError("it is no ONNX file")
        return self.value


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in their order, read as they are asked for.

    Raises:
        ValueError: It ends early, or is no message.
    """
    position = 0
    while position < len(message):
        start = position
        key, position = _varint(message, position)
        if key >> 32:
            # Read as 32 bits it would be another field.
            raise ValueError("it is no ONNX file")
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield Field(key >> 3, value, message[start:position])
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is no ONNX file")
        if length > len(message) - position:
            raise ValueError("it ends early, or is no ONNX file")
        end = position + length
        yield Field(key >> 3, message[position:end], message[start:end])
        position = end


def once(message: memoryview, number: int) -> list[memoryview]:
    """The value of a field, if it is there. Of two, a reader would take the last, or both merged into one.

    Raises:
        ValueError: It is there more than once, or not as bytes.
    """
    values = [field.message for field in fields(message) if field.number == number]
    if len(values) > 1:
        raise ValueError(f"it holds field {number} of a message {len(values)} times; expected it once")
    return values


def head(number: int, length: int) -> bytes:
    """What stands before the bytes of a field: its number and how many they are."""
    return _encoded(number << 3 | _BYTES) + _encoded(length)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value & (1 << 64) - 1, position + index + 1
    raise ValueError("it ends early, or is no ONNX file")


def _encoded(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)
