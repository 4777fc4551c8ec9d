"""Tiles, and a network that sees means of pixels."""

import numpy as np
import pytest
from scipy import ndimage

from flawline.__main__ import main
from flawline.runtime import kernels
from flawline.runtime.web.inspector import WebInspector
from tests.export.web.fits import STRIDE, STRIP, TILE, WIDTH, embeddings_of, fit, flaw, weave


@pytest.fixture(scope="module")
def binned(network, good, tmp_path_factory):
    return fit(network, good, tmp_path_factory.mktemp("binned") / "web.flaw", web={"binning": 2})


def test_a_tile_is_four_contexts_wide_where_nothing_is_asked_or_as_the_web(network, good, tmp_path):
    for name, web, width in (("plain", {}, 64), ("binned", {"binning": 4}, 160)):
        bundle = fit(network, good, tmp_path / name, web={"tile_px": None, **web})
        halo = bundle.manifest.web.halo
        assert bundle.manifest.input.width - 2 * halo == width == min(4 * halo, 160)


def test_binning_multiplies_every_length_of_the_network(binned, capsys):
    manifest = binned.manifest
    assert (manifest.web.binning, manifest.network.total_stride) == (2, 2 * STRIDE)
    # 2 x 7 px of context, rounded up to the stride, and the ring.
    assert (manifest.web.halo, manifest.web.ring) == (32, 16)
    assert (manifest.input.height, manifest.input.width) == (STRIP + 64, TILE + 64)
    assert (manifest.map.height, manifest.map.width) == ((STRIP + 32) // 8, (TILE + 32) // 8)
    assert manifest.map.sigma == 6 / 8
    assert main(["info", str(binned.path)]) == 0
    assert "means of 2 x 2 px" in capsys.readouterr().out


def test_binning_is_the_network_on_means_of_pixels(network, binned):
    piece = weave(192, 224, 99)
    flaw(piece, 90, 101)
    with WebInspector(binned, 224, backend="onnxruntime") as inspector:
        values, mask = inspector.inspect_piece(piece)
    assert mask.all()
    statistics = binned.statistics
    lower = kernels.unpack(statistics["factors"][0, 0], 16) * statistics["scales"][0, 0]
    embeddings = embeddings_of(network, piece.reshape(96, 2, 112, 2).mean((1, 3)))
    distances = np.linalg.norm((embeddings - statistics["means"][0, 0]) @ lower.T, axis=2)
    expected = ndimage.gaussian_filter(distances, 6 / 8, mode="mirror", radius=3)
    # Not near the ends, where pixels are reflected, and in the reference their means.
    np.testing.assert_allclose(values[8:-8, 8:-8], expected[8:-8, 8:-8], rtol=1e-4)


def test_binned_strips_of_other_sizes_give_the_same_map(binned):
    piece = weave(128, WIDTH, 98)
    flaw(piece, 50, 70)
    maps = []
    for strip_lines, tile_px in ((STRIP, TILE), (16, 32), (64, 96)):
        with WebInspector(binned, WIDTH, strip_lines=strip_lines, tile_px=tile_px, backend="onnxruntime") as inspector:
            maps.append(inspector.inspect_piece(piece)[0])
    assert maps[0].max() > binned.manifest.threshold.score
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-5)
