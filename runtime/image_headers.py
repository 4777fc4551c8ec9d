"""What the header of an image file promises, and whether the file is long and whole enough to keep it.

Decoders return a half-filled picture for a truncated file, eight of sixteen bits, or a frame without its alpha, and say
nothing. Everything that would change pixels in silence is found here, before the decoder runs.
Sources: PNG (W3C, third edition), JPEG (ITU-T T.81, annex B), BMP (BITMAPINFOHEADER), TIFF 6.0.
"""

import re
import struct
import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple


class HeaderError(Exception):
    """What is wrong with the file, as the second half of a sentence that begins with its name."""


class Header(NamedTuple):
    """What a file promises.

    Attributes:
        format: Name of the file format.
        width: In pixels, as stored.
        height: In pixels, as stored.
        mode: Grey, colour, or grey written through a palette whose entries are all grey.
    """

    format: str
    width: int
    height: int
    mode: Literal["grey", "colour", "grey palette"]


def inspect(data: bytes) -> Header:
    """Reads the header of a PNG, JPEG, BMP or TIFF file and checks that the file is whole.

    PNG carries checksums, and all are verified. The others have none: damage inside their pixel data that leaves the
    structure whole cannot be seen here; of a JPEG so damaged, libjpeg writes a line on standard error by itself.

    Args:
        data: The whole file.

    Raises:
        HeaderError: Not such a file, truncated, damaged, or of a kind that is not 8-bit grey or RGB.
    """
    for signature, parse in _FORMATS:
        if data.startswith(signature):
            try:
                return parse(data)
            except struct.error as error:
                raise HeaderError("is truncated inside its header; write it again") from error
    raise HeaderError(f"is not an image: it begins with {data[:8]!r}; expected PNG, JPEG, BMP or TIFF")


def _png(data: bytes) -> Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise HeaderError("is a PNG without a header; write it again")
    palette = b""
    position = 8
    while True:
        if position + 12 > len(data):
            raise HeaderError("is truncated: a PNG that ends before its last chunk; write it again")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise HeaderError(f"is truncated: chunk {kind.decode('latin-1')!a} reaches beyond the file; write it again")
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise HeaderError(f"is damaged: the checksum of chunk {kind.decode('latin-1')!a} is wrong; write it again")
        if kind == b"tRNS":
            _refuse_alpha()
        if kind == b"acTL":
            raise HeaderError("is animated; expected one picture")
        if kind == b"PLTE":
            palette = data[position + 8 : end - 4]
        if kind == b"IEND":
            break
        position = end
    if colour in (4, 6):
        _refuse_alpha()
    _require_8_bits(depth if depth > 8 else 8)
    if colour == 3:
        return Header("PNG", width, height, _palette_mode(palette, 3))
    return Header("PNG", width, height, "grey" if colour == 0 else "colour")


_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


def _jpeg(data: bytes) -> Header:
    header = None
    marker, position = 0xD8, 2
    while True:
        # A scan's pixel data follow its header, and in them every 0xff is followed by 0x00 or a restart marker.
        find = _JPEG_MARKER.search if marker == _JPEG_SCAN else _JPEG_MARKER.match
        found = find(data, position)
        if found is None and position < len(data) and marker != _JPEG_SCAN:
            raise HeaderError(f"is damaged: no JPEG marker at byte {position}; write it again")
        if found is None:
            raise HeaderError("is truncated: a JPEG without its end marker; write it again")
        marker, position = found[1][0], found.end()
        if marker == _JPEG_END:
            break
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_FRAMES and header is None:
            depth, height, width, channels = struct.unpack_from(">BHHB", data, position + 2)
            _require_8_bits(depth)
            if channels == 4:
                raise HeaderError("is CMYK; expected grey or RGB: convert it")
            if channels not in (1, 3):
                raise HeaderError(f"has {channels} channels; expected 1 (grey) or 3 (RGB)")
            header = Header("JPEG", width, height, "grey" if channels == 1 else "colour")
        position += length
    if header is None:
        raise HeaderError("is a JPEG without a picture; write it again")
    return header


def _bmp(data: bytes) -> Header:
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size < 40:
        raise HeaderError("is a BMP of OS/2 1.x; write it as PNG")
    width, signed_height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    (colours,) = struct.unpack_from("<I", data, 46)
    height = abs(signed_height)
    if bits == 32:
        _refuse_alpha()
    if bits not in (1, 4, 8, 24) or compression != 0:
        raise HeaderError(f"is a BMP of {bits} bits per pixel, compression {compression}; expected 1 to 24, none")
    row_bytes = (width * bits + 31) // 32 * 4
    missing = offset + row_bytes * height - len(data)
    if missing > 0:
        raise HeaderError(f"is truncated: {missing} bytes of pixels are missing; write it again")
    if bits == 24:
        return Header("BMP", width, height, "colour")
    start = 14 + header_size
    palette = data[start : start + 4 * (colours or 1 << bits)]
    return Header("BMP", width, height, _palette_mode(palette, 4))


_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I"}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES, _TIFF_PALETTE = 256, 257, 258, 262, 277, 320
_TIFF_EXTRA, _TIFF_FORMAT = 338, 339
_TIFF_PIECES = ((273, 279), (324, 325))
_TIFF_TAGS = {256, 257, 258, 262, 273, 277, 279, 320, 324, 325, 338, 339}
_TIFF_CMYK, _TIFF_INDEXED = 5, 3


def _tiff(data: bytes) -> Header:
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, directory)
    tags: dict[int, tuple[int, ...]] = {}
    for position in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, position)
        if tag in _TIFF_TAGS and tag not in tags and kind in _TIFF_INTEGERS and count <= len(data):
            layout = f"{order}{count}{_TIFF_INTEGERS[kind]}"
            inside = struct.calcsize(layout) <= 4
            place = position + 8 if inside else struct.unpack_from(f"{order}I", data, position + 8)[0]
            tags[tag] = struct.unpack_from(layout, data, place)
    if struct.unpack_from(f"{order}I", data, directory + 2 + 12 * entries)[0] != 0:
        raise HeaderError("holds several pages; expected one picture")
    if not tags.get(_TIFF_WIDTH) or not tags.get(_TIFF_HEIGHT) or not tags.get(_TIFF_PHOTOMETRIC):
        raise HeaderError("is a TIFF without width, height or kind of pixels; write it again")
    _tiff_pixels_are_there(tags, len(data))
    (photometric, *_), samples = tags[_TIFF_PHOTOMETRIC], tags.get(_TIFF_SAMPLES, (1,))[0]
    if photometric == _TIFF_CMYK:
        raise HeaderError("is CMYK; expected grey or RGB: convert it")
    if tags.get(_TIFF_EXTRA) or samples in (2, 4):
        _refuse_alpha()
    if samples not in (1, 3):
        raise HeaderError(f"has {samples} channels; expected 1 (grey) or 3 (RGB)")
    if set(tags.get(_TIFF_FORMAT, (1,))) != {1}:
        raise HeaderError("holds signed or floating-point pixels; expected unsigned 8-bit ones")
    _require_8_bits(*tags.get(_TIFF_BITS, (1,)))
    width, height = tags[_TIFF_WIDTH][0], tags[_TIFF_HEIGHT][0]
    if photometric == _TIFF_INDEXED:
        palette = tags.get(_TIFF_PALETTE, ())
        third = len(palette) // 3
        is_grey = palette[:third] == palette[third : 2 * third] == palette[2 * third :]
        return Header("TIFF", width, height, "grey palette" if is_grey else "colour")
    return Header("TIFF", width, height, "grey" if samples == 1 else "colour")


def _tiff_pixels_are_there(tags: dict[int, tuple[int, ...]], size: int) -> None:
    for offsets_tag, counts_tag in _TIFF_PIECES:
        offsets, counts = tags.get(offsets_tag, ()), tags.get(counts_tag, ())
        if offsets and len(offsets) == len(counts):
            end = max(offset + count for offset, count in zip(offsets, counts, strict=True))
            if end > size:
                raise HeaderError(f"is truncated: {end - size} bytes of pixels are missing; write it again")
            return
    raise HeaderError("is a TIFF that does not say where its pixels are; write it again")


def _palette_mode(palette: bytes, stride: int) -> Literal["colour", "grey palette"]:
    is_grey = palette[0::stride] == palette[1::stride] == palette[2::stride]
    return "grey palette" if is_grey else "colour"


def _require_8_bits(*bits: int) -> None:
    if set(bits) != {8}:
        raise HeaderError(f"has {max(bits)} bits per channel; expected 8: convert it, and choose the range on purpose")


def _refuse_alpha() -> None:
    raise HeaderError("has an alpha channel; expected grey or RGB: remove the transparency")


_FORMATS: tuple[tuple[bytes, Callable[[bytes], Header]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"BM", _bmp),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
)
