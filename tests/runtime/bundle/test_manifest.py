import json
from typing import Any

import msgspec
import pytest

from flawline.runtime.bundle import manifest as manifests
from flawline.runtime.errors import BundleError


@pytest.fixture
def fields(parts: Any) -> dict[str, Any]:
    """A valid manifest as plain JSON values."""
    return json.loads(manifests.encode(parts().manifest))


def put(fields: dict[str, Any], path: str, value: object) -> bytes:
    """The manifest's bytes with one field changed; `...` removes it."""
    *outer, last = path.split(".")
    target: Any = fields
    for key in outer:
        target = target[int(key)] if key.isdigit() else target[key]
    if value is ...:
        del target[last]
    else:
        target[int(last) if last.isdigit() else last] = value
    return json.dumps(fields).encode()


def test_encoding_and_decoding_give_the_same_manifest(parts: Any) -> None:
    manifest = parts().manifest
    assert manifests.decode(manifests.encode(manifest)) == manifest


def test_encoding_is_sorted_utf8_with_one_newline_at_the_end(parts: Any) -> None:
    manifest = parts().with_manifest(fit={"group_by": "ü*"}).manifest
    data = manifests.encode(manifest)
    assert data.endswith(b"}\n")
    assert "ü*".encode() in data
    assert json.dumps(json.loads(data), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n" == data


def test_unknown_keys_and_a_newer_minor_version_are_tolerated(fields: dict[str, Any]) -> None:
    fields["format"] = {"major": 1, "minor": 9, "patch": "later"}
    fields["input"]["bayer_pattern"] = "rggb"
    fields["novelty"] = [1, {"a": None}]
    assert manifests.decode(json.dumps(fields).encode()).format.minor == 9


def test_newer_major_version_is_refused_by_number_before_anything_else() -> None:
    with pytest.raises(BundleError, match=r"is of format 2\.1, this version reads format 1: update flawline"):
        manifests.decode(b'{"format": {"major": 2, "minor": 1}, "everything": "else differs"}')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"{}", "missing required field `format`"),
        (b"[]", "is a JSON array; expected an object"),
        (b'"text"', "is a JSON string; expected an object"),
        (b"null", "is a JSON null; expected an object"),
        (b"true", "is a JSON boolean; expected an object"),
        (b"1", "is a JSON number; expected an object"),
        (b"1.5", "is a JSON number; expected an object"),
        (b'{"format": {"major": 1}} {}', "is not JSON"),
        (b'{"format": {"major": 1}, "format": {"major": 1}}', "holds the key 'format' twice"),
        (b'{"format": ' + b"[" * 50_000, "nested too deeply|is not JSON"),
        (b'{"format": {"major": 0}}', "Expected `int` >= 1"),
        (b'{"format": {"major": "1"}}', "Expected `int`, got `str`"),
        (b'{"format": {"major": 1}}', "missing required field"),
    ],
)
def test_malformed_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        manifests.decode(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("detector", "patchcore", r"Invalid value 'patchcore' - at `\$.detector`"),
        ("flawline", "", r"length >= 1 - at `\$.flawline`"),
        ("input", ..., "missing required field `input`"),
        ("input.height", 0, r">= 1 - at `\$.input.height`"),
        ("input.height", 2.5, r"Expected `int`, got `float` - at `\$.input.height`"),
        ("input.height", True, r"Expected `int`, got `bool` - at `\$.input.height`"),
        ("input.height", 1 << 70, r"at `\$.input.height`|out of range"),
        ("input.channels", 2, r"Invalid enum value 2 - at `\$.input.channels`"),
        ("input.interpolation", "cubic", "Invalid enum value 'cubic'"),
        ("network.layers", [], r"length >= 1 - at `\$.network.layers`"),
        ("network.outputs", [], r"length >= 1 - at `\$.network.outputs`"),
        ("network.precision", "fp8", "Invalid enum value 'fp8'"),
        ("network.total_stride", 0, ">= 1"),
        ("network.weights.random", 1, r"Expected `bool`, got `int` - at `\$.network.weights.random`"),
        ("network.weights.sha256", "0" * 63, "Expected `str` matching regex"),
        ("network.weights.sha256", "0" * 64 + "\n", "Expected `str` matching regex"),
        ("network.weights.sha256", "A" * 64, "Expected `str` matching regex"),
        ("projection.kind", "pca", "Invalid enum value 'pca'"),
        ("projection.seed", -1, ">= 0"),
        ("projection.generator", "pcg64", "Invalid enum value 'pcg64'"),
        ("map.sigma", -1, ">= 0"),
        ("map.sigma", "1", "Expected `float`, got `str`"),
        ("gaussian.components", 0, ">= 1"),
        ("gaussian.block_rows", 16, "Invalid enum value 16"),
        ("gaussian.epsilon", None, "Expected `float`, got `null`"),
        ("gaussian.shrinkage", [], "Expected `float | str | null`"),
        ("threshold.false_reject_rate", 1, "< 1"),
        ("threshold.false_reject_rate", 0, "> 0"),
        ("threshold.score", None, r"Expected `float`, got `null` - at `\$.threshold.score`"),
        ("fit.images", 0, ">= 1"),
        ("parity", {"reference": "r", "error": []}, "Expected `float | str`"),
        ("files", {"../x": {"size": 1, "sha256": "0" * 64}}, "matching regex"),
        ("files", {"x": {"size": 0, "sha256": "0" * 64}}, ">= 1"),
        ("golden.relative_tolerance", 0, "> 0"),
    ],
)
def test_field_of_wrong_type_or_range_is_refused(
    fields: dict[str, Any], path: str, value: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        manifests.decode(put(fields, path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "input",
            {"height": 1 << 20, "width": 1 << 9, "channels": 1, "interpolation": "area"},
            "at most 268435456 pixels",
        ),
        ("input.source_width", None, "must both be given or both be null"),
        ("network.outputs.1.name", "features_0", "name a tensor twice"),
        ("network.outputs.0.height", 1, r"outputs\[0\] is 1 x 3; expected the map's 2 x 3"),
        ("network.outputs.1.width", 4, "output 'features_1' of 1 x 4 is finer than the map"),
        ("projection.dimension", 13, "projection from 12 to 13 channels"),
        ("projection.kind", "none", "projection none from 12 to 5 channels; expected equal numbers"),
        ("gaussian.count", 5, "gaussian.count is 5; expected 6 for Gaussians tied by position"),
        ("gaussian.tie", "column", "gaussian.count is 6; expected 3 for Gaussians tied by column"),
        ("gaussian.tie", "global", "gaussian.count is 6; expected 1 for Gaussians tied by global"),
        ("fit.calibration_images", 8, "threshold.calibration_images is 7, fit.calibration_images is 8"),
        ("parity", {}, 'parity lacks "reference"'),
        ("parity", {"reference": "r", "error": "small"}, "parity.error is a text; expected a number"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    fields: dict[str, Any], path: str, value: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        manifests.decode(put(fields, path, value))


def test_map_of_more_positions_than_memory_is_refused(fields: dict[str, Any]) -> None:
    for section in (fields["map"], fields["network"]["outputs"][0]):
        section.update(height=1 << 20, width=1 << 20)
    with pytest.raises(BundleError, match="at most 268435456 positions"):
        manifests.decode(json.dumps(fields).encode())


def test_parity_may_be_absent(parts: Any) -> None:
    manifest = msgspec.structs.replace(parts().manifest, parity=None)
    assert manifests.decode(manifests.encode(manifest)).parity is None
