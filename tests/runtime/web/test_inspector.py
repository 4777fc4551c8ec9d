"""A web scored strip by strip has the map that it has as a whole; without context it has not."""

import dataclasses

import msgspec
import numpy as np
import pytest
from scipy import ndimage

from flawline.runtime.detector import Detector
from flawline.runtime.errors import InputError
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.inspector import WebInspector

LINES, WIDTH = 500, 150


def smoothed(distances: np.ndarray, sigma: float) -> np.ndarray:
    radius = int(np.ceil(3 * sigma))
    weight, total = (
        ndimage.gaussian_filter(values.astype(np.float64), sigma, mode="constant", radius=radius)
        for values in (np.ones_like(distances), distances)
    )
    return total / weight


def whole_map(opened, pixels: np.ndarray, strip_lines: int, tile_px: int | None = None) -> np.ndarray:
    with WebInspector(
        opened, pixels.shape[1], strip_lines=strip_lines, tile_px=tile_px, backend="onnxruntime"
    ) as inspector:
        return inspector.inspect_piece(pixels)[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("strip_lines", "tile_px"), [(64, 64), (256, 64), (512, 152), (8, 152), (64, 24)])
def test_strips_and_tiles_give_the_map_of_the_whole_web(
    web_bundle, reference_distances, texture, channels, strip_lines, tile_px
):
    opened = web_bundle(channels=channels)
    pixels = texture(LINES, WIDTH, channels)
    pixels[240:250, 70:80] = 255
    expected = smoothed(reference_distances(opened, pixels), opened.manifest.map.sigma)
    received = whole_map(opened, pixels, strip_lines, tile_px)
    np.testing.assert_allclose(received, expected, rtol=1e-4)


def test_a_model_per_column_knows_its_columns_in_every_strip(web_bundle, reference_distances, texture):
    opened = web_bundle(tie="column", tile=152)
    pixels = texture(LINES, WIDTH)
    expected = smoothed(reference_distances(opened, pixels), opened.manifest.map.sigma)
    for strip_lines in (16, 64):
        np.testing.assert_allclose(whole_map(opened, pixels, strip_lines), expected, rtol=1e-4)
    with pytest.raises(InputError, match="a model per column of a web of 152 px"):
        WebInspector(opened, 400, backend="onnxruntime")
    with pytest.raises(InputError, match="a model per column of 152 px; expected that width"):
        WebInspector(opened, WIDTH, tile_px=160, backend="onnxruntime")


def test_a_flaw_that_moves_across_a_seam_scores_as_on_the_whole_web_and_without_context_it_does_not(
    web_bundle, texture
):
    opened = web_bundle()
    clean = texture(192, 64)
    worst = worst_naive = 0.0
    for line in range(40, 88):
        pixels = clean.copy()
        pixels[line : line + 4, 30:34] = 255
        whole = whole_map(opened, pixels, 192)
        strips = whole_map(opened, pixels, 64)
        naive = np.concatenate([whole_map(opened, pixels[top : top + 64], 64) for top in range(0, 192, 64)])
        rows = slice((line - 16) // 4, (line + 24) // 4)
        peak = whole[rows].max()
        worst = max(worst, abs(strips[rows].max() - peak) / peak)
        worst_naive = max(worst_naive, abs(naive[rows].max() - peak) / peak)
    assert worst <= 1e-4
    assert worst_naive > 0.01


def test_blocks_do_not_matter_and_a_gap_starts_anew(web_bundle, texture):
    opened = web_bundle()
    pixels = texture(LINES, WIDTH)
    expected = {}
    with WebInspector(opened, WIDTH, strip_lines=64, backend="onnxruntime") as inspector:
        for part, first in ((pixels[:203], 0), (pixels[300:], 300)):
            for steps in (inspector.add(part, first), inspector.cut()):
                for strip in steps:
                    for row, values, flagged in zip(
                        range(strip.rows.first_row, 1 << 30), strip.rows.values, strip.rows.flagged, strict=False
                    ):
                        expected[row] = (values.copy(), bool(flagged))
        received = {}
        line = 0
        for count in np.random.default_rng(0).integers(1, 60, 100):
            block = pixels[line : line + count]
            usable = [n for n in range(line, line + len(block)) if not 203 <= n < 300]
            for strip in inspector.add(pixels[usable], usable[0]) if usable else ():
                for row, values in zip(range(strip.rows.first_row, 1 << 30), strip.rows.values, strict=False):
                    received[row] = values.copy()
            line += count
        for strip in inspector.cut():
            for row, values in zip(range(strip.rows.first_row, 1 << 30), strip.rows.values, strict=False):
                received[row] = values.copy()
    assert received.keys() == expected.keys()
    for row, (values, _) in expected.items():
        np.testing.assert_array_equal(received[row], values)
    flagged = {row for row, (_, is_flagged) in expected.items() if is_flagged}
    # Halo and smoothing on both sides of the gap; the strip behind it begins at a multiple of the stride, before its first line.
    assert {row for row in flagged if 10 < row < 110} == set(range(163 // 4, 204 // 4)) | set(range(296 // 4, 340 // 4))


@pytest.mark.parametrize("sigma", [0.0, 1.2, 3.0])
@pytest.mark.parametrize("strip_lines", [8, 32])
def test_what_is_not_flagged_is_as_if_there_were_no_gap(web_bundle, texture, sigma, strip_lines):
    opened, pixels = web_bundle(), texture(LINES, WIDTH)
    manifest = opened.manifest
    smooth = msgspec.structs.replace(manifest, map=msgspec.structs.replace(manifest.map, sigma=sigma))
    opened = dataclasses.replace(opened, manifest=smooth)
    whole = whole_map(opened, pixels, strip_lines)
    sound = 0
    with WebInspector(opened, WIDTH, strip_lines=strip_lines, backend="onnxruntime") as inspector:
        for steps in (inspector.add(pixels[:203], 0), inspector.add(pixels[300:], 300), inspector.cut()):
            for strip in steps:
                rows = np.arange(strip.rows.first_row, strip.rows.first_row + len(strip.rows.values))
                kept = ~strip.rows.flagged
                np.testing.assert_allclose(strip.rows.values[kept], whole[rows[kept]], rtol=1e-5)
                sound += np.count_nonzero(kept)
    reach = 24 + 4 * int(np.ceil(3 * sigma))
    assert sound == pytest.approx((403 - 4 * reach) / 4, abs=2)


def test_a_detector_scores_pieces_of_any_size_as_the_stream_does(web_bundle, texture):
    opened = web_bundle()
    with Detector(opened, backend="onnxruntime") as detector:
        for lines, width in ((200, 100), (16, 16), (77, 100)):
            piece = texture(lines, width)
            result = detector(piece)
            np.testing.assert_array_equal(result.map, whole_map(opened, piece, 32))
            assert result.score == result.map.max()
            assert result.p_value in (0.25, 0.5, 0.75, 1.0)
        with pytest.raises(InputError, match="this bundle takes uint8"):
            detector(texture(64, 64, 3))


def test_lengths_that_are_no_multiples_of_the_stride_are_refused(web_bundle):
    geometry = Geometry.of(web_bundle().manifest)
    assert (geometry.window, geometry.map_size, geometry.map_stride) == ((80, 112), (12, 20), 4)
    for lengths in ({"strip_lines": 60}, {"tile_px": 12}, {"strip_lines": 0 - 8}):
        with pytest.raises(InputError, match="expected a multiple of 8, the network's stride"):
            geometry.resized(**lengths)
