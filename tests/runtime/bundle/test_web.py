"""Bundles for an endless web: what the manifest, the reader and the writer refuse of them, and what info says."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime import bundle
from flawline.runtime.bundle import manifest as manifests
from flawline.runtime.errors import BundleError
from flawline.runtime.web.geometry import Geometry, in_geometry

WINDOW = (144, 160)


@pytest.fixture
def web_parts(parts: Callable[..., Any]) -> Callable[..., Any]:
    """Parts of a bundle for webs: tiles of 48 x 32 px, 6 x 8 positions of 8 px with the ring."""

    def make(tie: str = "global", **web: object) -> Any:
        given = parts(tie=tie, size=(6, 8)).with_manifest(
            input={"height": WINDOW[0], "width": WINDOW[1], "source_height": None, "source_width": None},
            web=bundle.Web(**{"halo": 56, "ring": 8, **web}),
            network={"total_stride": 8},
        )
        golden = [replace(item, frame=np.full(WINDOW, 9, np.uint8)) for item in given.golden]
        return replace(given, golden=golden)

    return make


@pytest.fixture
def fields(web_parts: Callable[..., Any]) -> dict[str, Any]:
    """A valid manifest of a web as plain JSON values, in two precisions."""
    manifest = web_parts(
        pixel_mm=0.1,
        line_mm=0.2,
        edges=bundle.Edges(margin_px=9),
        shading=bundle.Shading(target=120.0, width_px=512),
        flat_field_sha256="5f" * 32,
    ).manifest
    variant = bundle.PadimVariant(
        features="features.onnx",
        network=msgspec.structs.replace(manifest.network, precision="bf16"),
        gaussian=manifest.gaussian,
        threshold=manifest.threshold,
        parity=None,
        fidelity=None,
        golden=manifest.golden,
    )
    manifest = msgspec.structs.replace(manifest, variants={"bf16": variant})
    facts: dict[str, Any] = json.loads(manifests.encode(manifest))
    return facts


def put(fields: dict[str, Any], path: str, value: object) -> bytes:
    """The manifest's bytes with one field changed; `...` removes it."""
    *outer, last = path.split(".")
    target = fields
    for key in outer:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(fields).encode()


def test_a_manifest_of_a_web_is_read_as_it_was_written(fields: dict[str, Any]) -> None:
    manifest = manifests.decode(json.dumps(fields).encode())
    assert manifest.web == bundle.Web(
        halo=56,
        ring=8,
        pixel_mm=0.1,
        line_mm=0.2,
        edges=bundle.Edges(margin_px=9),
        shading=bundle.Shading(target=120.0, width_px=512),
        flat_field_sha256="5f" * 32,
    )
    assert manifests.decode(manifests.encode(manifest)) == manifest


@pytest.mark.parametrize("path", ["web.pixel_mm", "web.line_mm", "web.edges", "web.shading", "web"])
@pytest.mark.parametrize("value", [None, ...])
def test_what_a_web_need_not_say_may_be_null_or_absent(fields: dict[str, Any], path: str, value: object) -> None:
    manifest = manifests.decode(put(fields, path, value))
    target: Any = manifest
    for key in path.split("."):
        target = getattr(target, key)
    assert target is None


def test_no_flat_field_is_no_key(fields: dict[str, Any]) -> None:
    manifest = manifests.decode(put(fields, "web.flat_field_sha256", ...))
    assert manifest.web is not None
    assert manifest.web.flat_field_sha256 is msgspec.UNSET
    assert b"flat_field" not in manifests.encode(manifest)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("web", [], r"Expected `object \| null`, got `array` - at `\$.web`"),
        ("web", {}, r"missing required field `halo` - at `\$.web`"),
        ("web.halo", ..., "missing required field `halo`"),
        ("web.ring", ..., "missing required field `ring`"),
        ("web.halo", 0, r">= 1 - at `\$.web.halo`"),
        ("web.halo", -8, r">= 1 - at `\$.web.halo`"),
        ("web.halo", 56.5, r"Expected `int`, got `float` - at `\$.web.halo`"),
        ("web.halo", True, r"Expected `int`, got `bool`"),
        ("web.halo", "56", r"Expected `int`, got `str`"),
        ("web.halo", 1 << 15, r"<= 16384 - at `\$.web.halo`"),
        ("web.halo", 1 << 70, r"at `\$.web.halo`|out of range"),
        ("web.ring", -8, r">= 0 - at `\$.web.ring`"),
        ("web.ring", None, "Expected `int`, got `null`"),
        ("web.pixel_mm", 0, r"> 0(\.0)? - at `\$.web.pixel_mm`"),
        ("web.pixel_mm", -0.1, r"> 0(\.0)? - at `\$.web.pixel_mm`"),
        ("web.line_mm", 0.0, r"> 0(\.0)? - at `\$.web.line_mm`"),
        ("web.line_mm", "0.2 mm", r"Expected `float \| null`, got `str`"),
        ("web.edges", {}, "missing required field `margin_px`"),
        ("web.edges", False, "Expected `object"),
        ("web.edges.margin_px", -1, r">= 0 - at `\$.web.edges.margin_px`"),
        ("web.edges.margin_px", 1 << 17, r"<= 65536 - at `\$.web.edges.margin_px`"),
        ("web.binning", 0, r">= 1 - at `\$.web.binning`"),
        ("web.binning", 2.0, r"Expected `int`, got `float`|expected a divisor"),
        ("web.shading.target", 0, r"> 0(\.0)? - at `\$.web.shading.target`"),
        ("web.shading.target", 256, r"<= 255(\.0)? - at `\$.web.shading.target`"),
        ("web.flat_field_sha256", True, "Expected `str`, got `bool`"),
        ("web.flat_field_sha256", None, "Expected `str`, got `null`"),
        ("web.flat_field_sha256", 5, r"Expected `str`, got `int` - at `\$.web.flat_field_sha256`"),
        ("web.flat_field_sha256", "", r"matching regex .* - at `\$.web.flat_field_sha256`"),
        ("web.flat_field_sha256", "5F" * 32, "matching regex"),
        ("web.flat_field_sha256", "5f" * 32 + "\n", "matching regex"),
        ("web.flat_field_sha256", "5f" * 33, "matching regex"),
        ("web.flat_field_sha256", ["5f" * 32], "Expected `str`, got `array`"),
        ("web.shading.width_px", 0, r">= 1 - at `\$.web.shading.width_px`"),
    ],
)
def test_a_field_of_wrong_type_or_range_is_refused(
    fields: dict[str, Any], path: str, value: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        manifests.decode(put(fields, path, value))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_pitch_that_is_not_finite_is_refused(fields: dict[str, Any], number: str) -> None:
    data = put(fields, "web.pixel_mm", 0.109375).replace(b"0.109375", number.encode())
    with pytest.raises(BundleError):
        manifests.decode(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("web.binning", 3, "web.binning is 3; expected a divisor of the total stride 8"),
        ("web.halo", 57, "web.halo 57 and web.ring 8; expected multiples of the total stride 8, halo >= ring"),
        ("web.ring", 4, "web.halo 56 and web.ring 4; expected multiples of the total stride 8"),
        ("web.ring", 64, "web.halo 56 and web.ring 64; expected multiples of the total stride 8, halo >= ring"),
        ("web.halo", 72, "a tile of 0 x 16 px; expected multiples of the total stride 8"),
        ("web.halo", 16384, "a tile of -32624 x -32608 px; expected multiples"),
        ("input.height", 148, "a tile of 36 x 48 px; expected multiples of the total stride 8"),
        ("input.width", 164, "a tile of 32 x 52 px; expected multiples of the total stride 8"),
        ("input.width", 192, "a map of 6 x 8; expected the proportions of tile and ring"),
        ("web.ring", 0, "a map of 6 x 8; expected the proportions of tile and ring"),
        ("network.total_stride", 4, "a map of 6 rows; expected a stride that divides 4"),
    ],
)
def test_a_web_that_contradicts_the_rest_is_refused(
    fields: dict[str, Any], path: str, value: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        manifests.decode(put(fields, path, value))


@pytest.mark.parametrize("where", ["gaussian", "variants.bf16.gaussian"])
def test_a_web_with_a_gaussian_per_position_is_refused(fields: dict[str, Any], where: str) -> None:
    put(fields, f"{where}.count", 48)
    with pytest.raises(BundleError, match=r"gaussian\.tie is position; expected column or global for a web"):
        manifests.decode(put(fields, f"{where}.tie", "position"))


@pytest.fixture
def laned(web_parts: Callable[..., Any]) -> Any:
    """Parts of a bundle with three lanes of 20 px in a tile of 48 px, of which columns begin at 0, 8, 16, ..."""
    given = web_parts(tie="column")
    kept = {name: given.statistics[name][:3] for name in ("means", "factors", "scales")}
    row = np.array([0, 0, 0, 0, 1, 1, 2, 2], np.int32)
    given = given.with_manifest(gaussian={"count": 3, "lane_px": 20})
    return given.with_statistics(**kept, assignment=np.tile(row, 6))


def test_lanes_are_read_as_they_were_written(laned: Any, tmp_path: Path) -> None:
    opened = bundle.read(laned.write(tmp_path / "bundle").path)
    assert opened.manifest.gaussian.lane_px == 20
    geometry = Geometry.of(opened.manifest)
    np.testing.assert_array_equal(geometry.lanes(20), opened.statistics["assignment"][:8])
    taller = in_geometry(opened, geometry.resized(strip_lines=64))
    np.testing.assert_array_equal(taller.statistics["assignment"], np.tile(geometry.lanes(20), 10))


def test_a_manifest_without_lanes_has_a_model_per_column(laned: Any) -> None:
    for value in (None, ...):
        fields = json.loads(manifests.encode(laned.manifest))
        put(fields, "gaussian.lane_px", value)
        assert manifests.decode(put(fields, "gaussian.count", 8)).gaussian.lane_px is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("gaussian.lane_px", 0, r">= 1 - at `\$.gaussian.lane_px`"),
        ("gaussian.lane_px", -20, r">= 1 - at `\$.gaussian.lane_px`"),
        ("gaussian.lane_px", 20.5, "Expected `int"),
        ("gaussian.lane_px", True, "Expected `int"),
        ("gaussian.lane_px", "20", "Expected `int"),
        ("gaussian.lane_px", 1 << 40, r"<= 2147483648 - at `\$.gaussian.lane_px`"),
        ("gaussian.lane_px", 7, r"gaussian\.lane_px is 7; expected at least 8, a column of the map"),
        ("gaussian.lane_px", 16, None),
        ("gaussian.lane_px", 10, r"gaussian\.count is 3; expected 5 lanes of 10 px in a tile of 48 px"),
        ("gaussian.lane_px", 1 << 31, r"gaussian\.count is 3; expected 1 lanes of 2147483648 px in a tile of 48 px"),
        ("gaussian.count", 8, r"gaussian\.count is 8; expected 3 lanes of 20 px in a tile of 48 px"),
        (
            "gaussian.tie",
            "global",
            r"gaussian\.lane_px is 20 for Gaussians tied by global; expected the columns of a web",
        ),
        ("gaussian.tie", "position", "expected column or global for a web"),
        ("web", None, r"gaussian\.lane_px is 20 for Gaussians tied by column; expected the columns of a web"),
    ],
)
def test_hostile_lanes_are_refused(laned: Any, path: str, value: object, message: str | None) -> None:
    fields = json.loads(manifests.encode(laned.manifest))
    data = put(fields, path, value)
    if message is None:
        manifests.decode(data)
    else:
        with pytest.raises(BundleError, match=message):
            manifests.decode(data)


def test_a_column_of_a_lane_that_is_not_there_is_refused(laned: Any, tmp_path: Path) -> None:
    outside = laned.with_statistics(assignment=np.full(48, 3, np.int32))
    with pytest.raises(BundleError, match="assignment names Gaussian 3; expected 0 to 2"):
        outside.write(tmp_path / "bundle")


def test_info_tells_the_lanes(laned: Any, tmp_path: Path, capsys: Any) -> None:
    written = laned.write(tmp_path / "bundle")
    assert main(["info", str(written.path)]) == 0
    assert re.search(
        r"^Detector +padim: one Gaussian per lane of 20 px of the web$", capsys.readouterr().out, re.MULTILINE
    )


@pytest.mark.parametrize("tie", ["global", "column"])
def test_a_bundle_for_a_web_is_opened_as_it_was_written(
    web_parts: Callable[..., Any], tie: str, tmp_path: Path
) -> None:
    given = web_parts(tie=tie)
    opened = bundle.read(given.write(tmp_path / "bundle").path)
    assert opened.manifest.web == given.manifest.web
    assert [item.frame.shape for item in opened.golden] == [WINDOW, WINDOW]


def test_golden_frames_of_a_web_that_are_no_windows_are_refused(web_parts: Callable[..., Any], tmp_path: Path) -> None:
    given = web_parts()
    smaller = replace(given, golden=[replace(given.golden[0], frame=np.zeros((144, 152), np.uint8))])
    with pytest.raises(BundleError, match=r"frame.0 is 144 x 152; expected a window of a web, 144 x 160"):
        smaller.write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_web_is_one_line_and_exit_2(
    web_parts: Callable[..., Any], forge: Callable[[Path, bytes], None], tmp_path: Path, capsys: Any
) -> None:
    written = web_parts().write(tmp_path / "bundle")
    fields = json.loads((written.path / "manifest.json").read_bytes())
    forge(written.path, put(fields, "web.halo", 57))
    for command in (["info"], ["stream", "--source", "replay:nowhere"]):
        assert main([command[0], str(written.path), *command[1:]]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert "expected multiples of the total stride 8" in captured.err


@pytest.mark.parametrize(
    ("web", "lines"),
    [
        (
            {},
            {
                "Web": "strips of 32 lines in tiles of 48 px, with 56 px of context (ring 8 px)",
                "  pitch": "unknown: positions are in pixels and lines",
                "  edges": "not looked for: the whole width is web",
                "  shading": "left in",
                "  flat field": "none taken out",
            },
        ),
        (
            {
                "pixel_mm": 0.05,
                "line_mm": 0.125,
                "edges": bundle.Edges(margin_px=24),
                "shading": bundle.Shading(target=117.5, width_px=512),
            },
            {
                "  pitch": "0.05 mm across, 0.125 mm along",
                "  edges": "found on every line, 24 px inside each masked",
                "  shading": "brought to grey level 117.5, what is wider than 512 px",
            },
        ),
        ({"flat_field_sha256": "5f" * 32}, {"  flat field": "taken out of every line, sha256 5f5f5f5f5f5f5f5f..."}),
        ({"line_mm": 0.125}, {"  pitch": "0.125 mm along"}),
    ],
)
def test_info_says_how_a_web_is_inspected(
    web_parts: Callable[..., Any], web: dict[str, object], lines: dict[str, str], tmp_path: Path, capsys: Any
) -> None:
    written = web_parts(**web).write(tmp_path / "bundle")
    assert main(["info", str(written.path)]) == 0
    text = capsys.readouterr().out
    for label, value in lines.items():
        assert re.search(rf"^{label} +{re.escape(value)}$", text, re.MULTILINE), label
    assert "7 held-out good strips" in text
    assert re.search(r"^Fit +20 strips and 7 for the threshold", text, re.MULTILINE)


def test_info_of_a_bundle_for_pictures_does_not_speak_of_webs(written: bundle.Bundle, capsys: Any) -> None:
    assert main(["info", str(written.path)]) == 0
    text = capsys.readouterr().out
    assert "\nWeb" not in text
    assert "strips" not in text
