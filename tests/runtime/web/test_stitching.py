"""The stitched map is that of the whole web: smoothed across seams, and only where there is web."""

import numpy as np
import pytest
from scipy import ndimage

from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.stitching import Stitcher
from flawline.runtime.web.strips import Strip

WIDTH, LINES, FIRST = 61, 330, 40


def strips(geometry: Geometry, distances: np.ndarray, left: np.ndarray, right: np.ndarray):
    """Each strip with the maps of its tiles, cut out of whole-web arrays whose row 0 is line `FIRST`."""
    stride, ring = geometry.map_stride, geometry.ring // geometry.map_stride
    for first in range(FIRST, FIRST + LINES, geometry.strip_lines):
        end = min(FIRST + LINES, first + geometry.strip_lines)
        rows = slice(first - FIRST, end - FIRST)
        edges = [np.pad(edge[rows], (0, geometry.strip_lines - (end - first)), mode="edge") for edge in (left, right)]
        maps = np.full((geometry.tiles(WIDTH), *geometry.map_size), np.nan, np.float32)
        part = distances[(first - FIRST) // stride : -(-(end - FIRST) // stride)]
        tile = geometry.tile_px // stride
        for number in range(len(maps)):
            cell = part[:, number * tile : (number + 1) * tile]
            maps[number, ring : ring + len(cell), ring : ring + cell.shape[1]] = cell
        stretch_end = FIRST + LINES if first + geometry.strip_lines + geometry.halo > FIRST + LINES else None
        yield (
            Strip(first, first, end, first == FIRST, stretch_end, np.empty(0, np.uint8), *edges),
            maps,
        )


def expected_map(distances: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    if sigma == 0:
        return np.where(mask, distances, 0)
    radius = int(np.ceil(3 * sigma))
    weight, total = (
        ndimage.gaussian_filter(values.astype(np.float64), sigma, mode="constant", radius=radius)
        for values in (mask, np.where(mask, distances, 0))
    )
    return np.where(mask, total / np.maximum(weight, 1e-9), 0)


@pytest.mark.parametrize("sigma", [0.0, 0.8, 3.0])
@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize(("strip_lines", "tile_px"), [(8, 64), (16, 24), (64, 64), (512, 24)])
def test_rows_equal_those_of_the_whole_web(sigma, margin, strip_lines, tile_px):
    geometry = Geometry(strip_lines, tile_px, halo=24, ring=8, stride=8, map_stride=4)
    random = np.random.default_rng(0)
    distances = random.random((-(-LINES // 4), -(-WIDTH // 4)), np.float32) * 10
    left = np.abs(random.normal(6, 2, LINES)).astype(np.float32)
    right = 55 - np.abs(random.normal(0, 2, LINES)).astype(np.float32)
    ends = np.arange(LINES)
    groups = ends // 4
    lefts = np.array([left[groups == g].max() for g in range(groups.max() + 1)]) + margin
    rights = np.array([right[groups == g].min() for g in range(groups.max() + 1)]) - margin
    cells = np.arange(distances.shape[1]) * 4
    mask = (cells >= lefts[:, None]) & (np.minimum(cells + 4, WIDTH) <= rights[:, None])

    stitcher = Stitcher(geometry, WIDTH, sigma, margin)
    values, masks, flagged, next_row = [], [], [], FIRST // 4
    for strip, maps in strips(geometry, distances, left, right):
        rows = stitcher.add(strip, maps)
        assert rows.first_row == next_row
        next_row += len(rows.values)
        # Smoothing holds back no more rows than it must.
        if not strip.ends:
            assert next_row == max(FIRST // 4, (strip.first_line + strip_lines) // 4 - int(np.ceil(3 * sigma)))
        values.append(rows.values.copy())
        masks.append(rows.mask.copy())
        flagged.append(rows.flagged)
    np.testing.assert_array_equal(np.concatenate(masks), mask)
    np.testing.assert_allclose(np.concatenate(values), expected_map(distances, mask, sigma), rtol=2e-5, atol=1e-6)
    reach = 24 + 4 * int(np.ceil(3 * sigma))
    near = (np.arange(len(mask)) * 4 < reach) | (np.arange(len(mask)) * 4 + 4 > LINES - reach)
    np.testing.assert_array_equal(np.concatenate(flagged), near)


def test_a_full_mask_and_no_mask_at_all():
    geometry = Geometry(16, 64, halo=24, ring=8, stride=8, map_stride=4)
    distances = np.ones((-(-LINES // 4), -(-WIDTH // 4)), np.float32)
    nothing, everything = np.zeros(LINES, np.float32), np.full(LINES, WIDTH, np.float32)
    for right, expected in ((everything, 1.0), (nothing, 0.0)):
        stitcher = Stitcher(geometry, WIDTH, 2.0)
        given = [stitcher.add(strip, maps).values.copy() for strip, maps in strips(geometry, distances, nothing, right)]
        np.testing.assert_allclose(np.concatenate(given), expected, rtol=1e-6)
