"""Shading goes, texture and flaws stay."""

import numpy as np
import pytest

from flawline.runtime.bundle.manifest import Edges, Shading, Web
from flawline.runtime.web.conditioning import Conditioner
from flawline.runtime.web.shading import level

SHADING = Shading(target=110.0, width_px=200)


def web(lines: int, width: int, channels: int = 1) -> np.ndarray:
    random = np.random.default_rng(0)
    slow = 90 + 50 * np.arange(width) / width + 10 * np.sin(np.arange(lines) / 200)[:, None]
    values = slow + random.normal(0, 6, (lines, width))
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    return pixels if channels == 1 else np.repeat(pixels[..., None], 3, axis=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_web_comes_to_one_brightness_and_the_table_stays(channels):
    pixels = web(320, 1000, channels)
    before = pixels.copy()
    edges = np.full(320, 100, np.float32), np.full(320, 900, np.float32)
    level(pixels, 0, edges, SHADING)
    np.testing.assert_array_equal(pixels[:, :100], before[:, :100])
    np.testing.assert_array_equal(pixels[:, 900:], before[:, 900:])
    means = pixels[:, 200:800].reshape(20, 16, 6, -1).mean(axis=(1, 3))
    assert np.abs(before[:, 200:800].reshape(20, 16, 6, -1).mean(axis=(1, 3)) - 110).max() > 10
    np.testing.assert_allclose(means, 110, atol=1.5)


def test_a_flaw_keeps_its_contrast():
    pixels = web(320, 1000)
    pixels[100:140, 500:506] = 10
    level(pixels, 0, (np.zeros(320, np.float32), np.full(320, 1000, np.float32)), SHADING)
    assert pixels[104:140, 500:506].max() < 20


def test_a_web_that_is_not_there_is_left_alone():
    pixels = web(32, 1000)
    before = pixels.copy()
    level(pixels, 0, (np.full(32, 500, np.float32), np.full(32, 500, np.float32)), SHADING)
    np.testing.assert_array_equal(pixels, before)


def test_a_black_web_does_not_become_noise():
    pixels = np.random.default_rng(0).integers(0, 3, (32, 1000)).astype(np.uint8)
    level(pixels, 0, (np.zeros(32, np.float32), np.full(32, 1000, np.float32)), SHADING)
    assert pixels.max() <= 16


def test_conditioning_does_what_the_bundle_says_and_no_more():
    assert not Conditioner(Web(halo=16, ring=0)).is_needed
    pixels = web(64, 1000)
    pixels[:, :200] = 255
    before = pixels.copy()
    left, _ = Conditioner(Web(halo=16, ring=0, edges=Edges(margin_px=0)))(pixels, 0)
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_allclose(left, 200, atol=1)
    Conditioner(Web(halo=16, ring=0, edges=Edges(margin_px=0), shading=SHADING))(pixels, 0)
    np.testing.assert_array_equal(pixels[:, :199], before[:, :199])
    assert abs(float(pixels[:, 300:].mean()) - 110) < 2
