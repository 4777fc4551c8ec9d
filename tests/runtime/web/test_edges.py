"""Edges of webs whose edges are known."""

import itertools

import numpy as np
import pytest

from flawline.runtime.web.edges import SMALLEST_WIDTH_PX, EdgeFinder, groups

WIDTH = 900


def picture(lines, left, right, *, table, level=120.0, texture=12.0, shading=0.0, seed=0, channels=1, width=WIDTH):
    """A textured web from `left` to `right` (n,) on a table of another brightness: uint8 (n, width[, 3])."""
    random = np.random.default_rng(seed)
    columns = np.arange(width)
    web = (
        level + shading * columns / width + texture * np.sin(columns * 0.9) + random.normal(0, texture, (lines, width))
    )
    background = table + random.normal(0, 2, (lines, width))
    inside = (columns >= left[:, None]) & (columns < right[:, None])
    pixels = np.clip(np.where(inside, web, background), 0, 255).astype(np.uint8)
    return pixels if channels == 1 else np.repeat(pixels[..., None], 3, axis=2)


def wander(lines, centre, reach, seed=1):
    phase = np.random.default_rng(seed).random() * 6
    return centre + np.round(reach * np.sin(np.arange(lines) / 300 + phase))


@pytest.mark.parametrize("table", [255, 180, 60, 0])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shading", [0.0, 40.0])
def test_both_edges_are_found_on_each_line_beside_any_table(table, channels, shading):
    left, right = wander(640, 110, 20), wander(640, 800, 15, seed=2)
    pixels = picture(640, left, right, table=table, channels=channels, shading=shading)
    found_left, found_right = EdgeFinder()(pixels, 0)
    for found, true in ((found_left, left), (found_right, right)):
        errors = np.abs(found - true)
        assert np.median(errors) <= 1, np.median(errors)
        assert np.quantile(errors, 0.99) <= 4, errors.max()


def test_a_web_that_fills_the_image_has_the_image_for_edges_whatever_its_shading_and_flaws():
    pixels = picture(320, np.zeros(320), np.full(320, WIDTH), table=0, shading=60.0)
    pixels[:, 600:604] = 255  # a thread along the web
    pixels[100:140, 300:420] = 10  # a hole
    left, right = EdgeFinder()(pixels, 0)
    assert (left == 0).all()
    assert (right == WIDTH).all()


def test_a_selvedge_is_part_of_the_web():
    left = np.full(320, 120)
    pixels = picture(320, left, np.full(320, WIDTH), table=230)
    for band, level in ((slice(120, 140), 60), (slice(140, 160), 200), (slice(160, 190), 60)):
        pixels[:, band] = level
    found, _ = EdgeFinder()(pixels, 0)
    np.testing.assert_allclose(found, 120, atol=1)


def test_a_few_flawed_groups_are_outvoted():
    left = np.full(640, 200)
    pixels = picture(640, left, np.full(640, WIDTH), table=30)
    clean, _ = EdgeFinder()(pixels, 0)
    pixels[320:368, 60:130] = 140  # something lies on the table
    found, _ = EdgeFinder()(pixels, 0)
    np.testing.assert_allclose(found, clean, atol=2)


@pytest.mark.parametrize("first_line", [0, 37])
def test_edges_do_not_depend_on_the_calls(first_line):
    pixels = picture(333, wander(333, 110, 20), wander(333, 800, 15), table=20)
    whole = EdgeFinder()(pixels, first_line)
    for seed in range(3):
        finder, parts = EdgeFinder(), groups(len(pixels), first_line)
        cuts = np.unique(np.random.default_rng(seed).choice([part.start for part in parts[1:]], 6))
        bounds = [0, *cuts.tolist(), len(pixels)]
        found = [finder(pixels[a:b], first_line + a) for a, b in itertools.pairwise(bounds)]
        for side in (0, 1):
            np.testing.assert_array_equal(np.concatenate([edges[side] for edges in found]), whole[side])


def test_behind_a_gap_the_edges_are_found_anew():
    before = picture(160, np.full(160, 100), np.full(160, WIDTH), table=20)
    after = picture(160, np.full(160, 300), np.full(160, WIDTH), table=20)
    finder = EdgeFinder()
    finder(before, 0)
    np.testing.assert_array_equal(finder(after, 1600)[0], EdgeFinder()(after, 0)[0])


def test_groups_begin_at_multiples_of_their_height():
    assert groups(40, 0) == [slice(0, 16), slice(16, 32), slice(32, 40)]
    assert groups(40, 5) == [slice(0, 11), slice(11, 27), slice(27, 40)]
    assert groups(3, 14) == [slice(0, 2), slice(2, 3)]
    assert groups(3, 0) == [slice(0, 3)]


@pytest.mark.parametrize("table", [255, 40])
@pytest.mark.parametrize(
    ("width", "left", "right"),
    [
        (SMALLEST_WIDTH_PX, 30, 130),
        (161, 70, 161),
        (200, 80, 200),
        (240, 60, 200),
        (250, 100, 250),
        (256, 110, 256),
        (300, 100, 300),
        (300, 0, 200),
        (320, 120, 320),
        (400, 200 - 8, 400),
        (512, 150, 400),
        (767, 250, 510),
        (768, 250, 510),
        (1024, 505, 1024),
        (1024, 0, 520),
        (1024, 0, 1024),
        (200, 0, 200),
    ],
)
def test_edges_of_narrow_lines_and_near_the_middle_are_found(width, left, right, table):
    pixels = picture(64, np.full(64, left), np.full(64, right), table=table, width=width)
    finder = EdgeFinder()
    found_left, found_right = finder(pixels, 0)
    np.testing.assert_allclose(found_left, left, atol=2)
    np.testing.assert_allclose(found_right, right, atol=2)
    assert finder.crossed_lines == 0


@pytest.mark.parametrize("width", [1, 2, 15, 16, 48, 100, SMALLEST_WIDTH_PX - 1])
def test_lines_too_narrow_for_edges_are_web_from_border_to_border(width):
    pixels = picture(32, np.full(32, width // 2), np.full(32, width), table=0, width=width)
    left, right = EdgeFinder()(pixels, 0)
    assert (left == 0).all()
    assert (right == width).all()


def test_edges_that_cross_are_counted_and_leave_the_whole_line_to_be_inspected():
    # What was the left edge moves across the middle, and becomes the right one.
    pixels = picture(640, np.repeat([449, 452], 320), np.full(640, WIDTH), table=20)
    finder = EdgeFinder()
    left, right = finder(pixels, 0)
    assert (left < right).all()
    assert finder.crossed_lines > 0
    crossed = (left == 0) & (right == WIDTH)
    assert np.count_nonzero(crossed) >= finder.crossed_lines
    np.testing.assert_allclose(left[:320], 449, atol=2)
    np.testing.assert_allclose(right[-160:], 452, atol=2)


def test_something_on_the_first_lines_of_a_stretch_is_outvoted_by_the_others():
    left = np.full(160, 200)
    pixels = picture(160, left, np.full(160, WIDTH), table=30)
    pixels[:5, 60:130] = 140  # on the table
    np.testing.assert_allclose(EdgeFinder()(pixels, 0)[0], 200, atol=2)
