"""Makes the malformed tensor files beside it: `python tests/hostile/make.py`. The same bytes at every run."""

import json
from collections.abc import Mapping
from pathlib import Path

ALIGNMENT = 64


def tensor(dtype: object, shape: object, *offsets: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


GOOD: Mapping[str, object] = {"a": tensor("F32", [2, 2], 0, 16), "b": tensor("U8", [3], 16, 19)}
DATA = bytes(range(19))


def build(header: Mapping[str, object] | bytes, data: bytes = DATA, *, pad: bytes = b" ", shift: int = 0) -> bytes:
    """A file with this header, padded as the format asks, and these bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += pad * (-(8 + len(text)) % ALIGNMENT + shift)
    return len(text).to_bytes(8, "little") + text + data


def one(name: str = "a", **changes: object) -> bytes:
    """A file of one tensor F32 (2, 2) of which something is changed."""
    return build({name: {**tensor("F32", [2, 2], 0, 16), **changes}}, DATA[:16])


def raw(text: str) -> bytes:
    """A file of one tensor whose description is this text."""
    return build(b'{"a":' + text.encode() + b"}", DATA[:16])


A = '{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}'

FILES: dict[str, bytes] = {
    "empty": b"",
    "length_truncated": build(GOOD)[:5],
    "length_zero": (0).to_bytes(8, "little") + bytes(56),
    "length_over_cap": ((1 << 20) + 1).to_bytes(8, "little") + b"{}",
    "length_maximum": b"\xff" * 8 + b"{}",
    "header_longer_than_file": build(GOOD)[:64],
    "header_misaligned": build(GOOD, shift=8),
    "header_begins_with_space": build(b" " + json.dumps(GOOD).encode()),
    "header_is_an_array": build(b"[1,2]"),
    "header_not_json": build(b'{"a":'),
    "header_not_utf8": build(b'{"\xff":1}'),
    "header_nested_deeply": raw("[" * 4000 + "]" * 4000),
    "header_holds_nan": raw('{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}'),
    "header_with_text_after_it": build(b'{"a":' + A.encode() + b"}{}", DATA[:16]),
    "header_padded_with_zeros": build(GOOD, pad=b"\x00"),
    "key_twice": build(f'{{"a":{A},"a":{A}}}'.encode(), DATA[:16]),
    "key_twice_by_escape": build(f'{{"a":{A},"\\u0061":{A}}}'.encode(), DATA[:16]),
    "inner_key_twice": raw('{"dtype":"F32","dtype":"F32","shape":[2,2],"data_offsets":[0,16]}'),
    "no_tensor": build({}, b""),
    "metadata_not_an_object": build({"__metadata__": "text", **GOOD}),
    "metadata_not_strings": build({"__metadata__": {"a": 1}, **GOOD}),
    "name_empty": one(""),
    "name_of_other_letters": one("\N{CYRILLIC SMALL LETTER A}"),
    "name_of_other_letters_unescaped": build('{"\u0430":'.encode() + A.encode() + b"}", DATA[:16]),
    "name_lone_surrogate": build(f'{{"\\ud800":{A}}}'.encode(), DATA[:16]),
    "name_with_zero_byte": one("a\x00b"),
    "name_with_escape_sequence": one("a\x1b[2J"),
    "name_with_path": one("../a"),
    "name_too_long": one("a" * 65),
    "tensor_not_an_object": build({"a": [1, 2]}, b""),
    "tensor_without_dtype": raw('{"shape":[2,2],"data_offsets":[0,16]}'),
    "tensor_with_extra_key": one(strides=[1, 2]),
    "dtype_unknown": one(dtype="BF16", shape=[8]),
    "dtype_not_text": one(dtype=["F32"]),
    "shape_not_a_list": one(shape=4),
    "shape_scalar": one(shape=[]),
    "shape_zero": one(shape=[0, 4]),
    "shape_negative": one(shape=[-2, -2]),
    "shape_fraction": one(shape=[2.0, 2.0]),
    "shape_boolean": one(shape=[True, 4]),
    "shape_of_nine_axes": one(shape=[1, 1, 1, 1, 1, 1, 1, 2, 2]),
    "shape_huge": one(shape=[1 << 62]),
    "shape_wraps_64_bits": one(shape=[1 << 62, 1 << 2], data_offsets=[0, 0]),
    "shape_beyond_64_bits": one(shape=[1 << 80]),
    "offsets_not_a_list": one(data_offsets="0:16"),
    "offsets_of_three": one(data_offsets=[0, 8, 16]),
    "offsets_fraction": one(data_offsets=[0.0, 16.0]),
    "offsets_negative": one(data_offsets=[-16, 0]),
    "offsets_reversed": one(data_offsets=[16, 0]),
    "offsets_maximum": one(data_offsets=[(1 << 64) - 16, (1 << 64)]),
    "span_too_short": one(data_offsets=[0, 12]),
    "span_too_long": one(data_offsets=[0, 20]),
    "tensor_misaligned": build({"b": tensor("U8", [3], 0, 3), "a": tensor("F32", [2, 2], 3, 19)}),
    "tensors_overlap": build({"a": tensor("F32", [2, 2], 0, 16), "b": tensor("U8", [3], 15, 18)}, DATA[:18]),
    "tensors_share_bytes": build({"a": tensor("U8", [16], 0, 16), "b": tensor("U8", [16], 0, 16)}, DATA[:16]),
    "hole_before_first": build({"a": tensor("F32", [2, 2], 4, 20)}, bytes(20)),
    "hole_between": build({"a": tensor("F32", [2, 2], 0, 16), "b": tensor("U8", [3], 17, 20)}, bytes(20)),
    "data_truncated": build(GOOD)[:-1],
    "data_missing": build(GOOD, b""),
    "data_too_long": build(GOOD) + b"\x00",
}


if __name__ == "__main__":
    for stem, content in FILES.items():
        Path(__file__).with_name(f"{stem}.safetensors").write_bytes(content)
