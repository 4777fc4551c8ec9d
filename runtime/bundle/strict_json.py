"""JSON that has one meaning: what two parsers could read differently is refused."""

import json
from typing import Any

import msgspec

from flawline.runtime.errors import BundleError


def parse(data: bytes, where: str) -> dict[str, Any]:
    """Parses one JSON object.

    Args:
        data: UTF-8 bytes.
        where: File (and part of it) for the error message.

    Returns:
        The object.

    Raises:
        BundleError: Not UTF-8, not JSON (NaN and Infinity are not), nested too deeply, not an object, or a key twice.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{where} is not UTF-8 (byte {error.start}); the file is damaged: copy the bundle again"
        ) from error
    try:
        value = msgspec.json.decode(data)
        # msgspec judges the syntax; it keeps the last of two equal keys without a word, so json looks for those.
        json.loads(data, object_pairs_hook=_refuse_duplicates)
    except _DuplicateKeyError as error:
        raise BundleError(f"{where} holds the key {error} twice; expected every key once") from error
    except RecursionError as error:
        raise BundleError(f"{where} is nested too deeply; expected a few levels") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise BundleError(f"{where} is not JSON ({error}); the file is damaged: copy the bundle again") from error
    if not isinstance(value, dict):
        raise BundleError(f"{where} is a JSON {_kind(value)}; expected an object")
    return value


class _DuplicateKeyError(Exception):
    """Carries the key that occurs twice."""


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _DuplicateKeyError(ascii(key[:80]))
        seen.add(key)


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]
