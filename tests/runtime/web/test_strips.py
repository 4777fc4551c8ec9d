"""A strip and its context are what one would cut out of the whole web, however the lines came."""

import numpy as np
import pytest

from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.strips import GROUP_LINES, StripBuffer


def geometry(strip_lines: int, tile_px: int, halo: int = 24, stride: int = 8) -> Geometry:
    return Geometry(strip_lines, tile_px, halo=halo, ring=stride, stride=stride, map_stride=4)


def web(lines: int, width: int, channels: int = 1) -> np.ndarray:
    shape = (lines, width) if channels == 1 else (lines, width, channels)
    return np.random.default_rng(lines + width).integers(0, 256, shape, np.uint8)


def whole(pixels: np.ndarray, strip: Geometry, first_line: int) -> np.ndarray:
    """The stretch with all the context there can be; row 0 is `halo` lines before the first strip."""
    halo, beyond = strip.halo, strip.tiles(pixels.shape[1]) * strip.tile_px - pixels.shape[1]
    above = halo + first_line % strip.stride
    pads = [(above, halo + strip.strip_lines), (halo, halo + beyond)] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, pads, mode="reflect")


def blocks(pixels: np.ndarray, seed: int, first_line: int) -> list[tuple[np.ndarray, int]]:
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(pixels) + 1, seed))
    parts = np.split(pixels, cuts)
    starts = first_line + np.concatenate([[0], np.cumsum([len(part) for part in parts])[:-1]])
    return [(part, int(start)) for part, start in zip(parts, starts, strict=True)]


@pytest.mark.parametrize("strip_lines", [8, 16, 40, 64, 512])
@pytest.mark.parametrize(("tile_px", "channels"), [(64, 1), (24, 1), (24, 3)])
@pytest.mark.parametrize("first_line", [0, 8, 163])
@pytest.mark.parametrize("lines", [1, 5, 37, 301])
def test_windows_are_cut_out_of_the_whole_web(strip_lines, tile_px, channels, first_line, lines):
    strip = geometry(strip_lines, tile_px)
    pixels = web(lines, 61, channels)
    expected = whole(pixels, strip, first_line)
    for seed in range(4):
        buffer = StripBuffer(strip, 61, channels)
        given = []
        for part, start in blocks(pixels, seed, first_line):
            given += [
                (s.first_line, s.start, s.end, s.begins, s.ends, s.window.copy()) for s in buffer.add(part, start)
            ]
        given += [(s.first_line, s.start, s.end, s.begins, s.ends, s.window.copy()) for s in buffer.cut()]
        aligned, end = first_line - first_line % 8, first_line + lines
        assert [first for first, *_ in given] == list(range(aligned, end, strip_lines))
        assert [(start, stop) for _, start, stop, *_ in given] == [
            (max(first_line, at), min(end, at + strip_lines)) for at in range(aligned, end, strip_lines)
        ]
        assert [begins for *_, begins, _, _ in given] == [True] + [False] * (len(given) - 1)
        assert [ends for *_, ends, _ in given] == [False] * (len(given) - 1) + [True]
        for first, _, stop, *_, window in given:
            # Below the last line, more than the halo is of no use to the lines of the strip.
            rows = min(strip.window[0], stop - first + 2 * strip.halo)
            np.testing.assert_array_equal(window[:rows], expected[first - aligned :][:rows])


def test_a_strip_comes_with_the_last_line_of_its_context():
    buffer = StripBuffer(geometry(16, 64), 61)
    pixels = web(200, 61)
    seen = []
    for line in range(len(pixels)):
        seen += [(line, strip.first_line) for strip in buffer.add(pixels[line : line + 1], line)]
    # The context of lines 0 .. 15 ends with line 39; groups of 16 lines are conditioned together, so 47 completes it.
    assert seen[:3] == [(47, 0), (63, 16), (79, 32)]


def test_lines_are_conditioned_once_in_whole_groups_whatever_the_blocks():
    pixels = web(203, 61)
    records = []
    for seed in (0, 1, 7, 30):
        calls = []

        def condition(lines, first_line, calls=calls):
            calls.append((first_line, len(lines)))
            lines[...] = lines // 2
            return np.full(len(lines), 3.0, np.float32), np.arange(
                first_line, first_line + len(lines), dtype=np.float32
            )

        buffer = StripBuffer(geometry(32, 64), 61, condition=condition)
        strips = []
        for part, start in blocks(pixels, seed, 5):
            strips += [(s.window.copy(), s.right.copy(), s.start, s.end, s.first_line) for s in buffer.add(part, start)]
        strips += [(s.window.copy(), s.right.copy(), s.start, s.end, s.first_line) for s in buffer.cut()]
        # Every line once, in order; groups are whole but for the first and the last.
        lines = [line for first, count in calls for line in range(first, first + count)]
        assert lines == list(range(5, 208))
        assert all(first % GROUP_LINES == 0 for first, _ in calls[1:])
        records.append(strips)
    for strips in records:
        for (window, right, start, end, first), (other, *_) in zip(strips, records[0], strict=True):
            np.testing.assert_array_equal(window[: end - first + 48], other[: end - first + 48])
            np.testing.assert_array_equal(right[start - first : end - first], np.arange(start, end))


def test_what_follows_a_cut_knows_nothing_of_what_was_before():
    strip = geometry(16, 64)
    pixels = web(120, 61)
    buffer = StripBuffer(strip, 61)
    for part in (buffer.add(pixels[:50], 0), buffer.cut()):
        for _ in part:
            pass
    assert buffer.next_line is None
    after = [s.window.copy() for s in buffer.add(pixels[60:], 60)] + [s.window.copy() for s in buffer.cut()]
    fresh = StripBuffer(strip, 61)
    expected = [s.window.copy() for s in fresh.add(pixels[60:], 60)] + [s.window.copy() for s in fresh.cut()]
    for window, other in zip(after, expected, strict=True):
        np.testing.assert_array_equal(window, other)
