"""Detectors for an endless web, fitted on small webs and held to what one run over the whole web gives."""

import numpy as np
import onnx
import pytest

from flawline.__main__ import main
from flawline.calibration import conformal
from flawline.calibration.statistics import StatisticsOptions
from flawline.calibration.web_pieces import read_pieces
from flawline.export.fit_web import fit_web_bundle
from flawline.export.options import FitOptions, WebOptions
from flawline.runtime import kernels
from flawline.runtime.images import write_image
from flawline.runtime.web.inspector import WebInspector
from tests.export.web.fits import (
    MAP_STRIDE,
    MARGIN,
    STRIDE,
    STRIP,
    TABLE,
    TILE,
    WIDTH,
    embeddings_of,
    fit,
    flaw,
    held_out_and_fitted,
    pieces_of_web,
    weave,
)


def test_the_manifest_says_how_the_web_is_inspected(fitted):
    manifest = fitted.manifest
    # 7 px of context, rounded up to the stride, and the ring.
    assert (manifest.web.halo, manifest.web.ring) == (16, 8)
    assert (manifest.input.height, manifest.input.width) == (STRIP + 32, TILE + 32)
    assert (manifest.input.source_height, manifest.input.source_width) == (STRIP, WIDTH)
    assert (manifest.map.height, manifest.map.width) == ((STRIP + 16) // MAP_STRIDE, (TILE + 16) // MAP_STRIDE)
    assert manifest.map.sigma == 6 / MAP_STRIDE
    assert manifest.network.total_stride == STRIDE
    assert manifest.gaussian.count == 1
    assert (manifest.web.edges, manifest.web.shading, manifest.web.pixel_mm, manifest.web.line_mm) == (None,) * 4
    assert fitted.golden[0].frame.shape == (STRIP + 32, TILE + 32)


def test_the_graph_leaves_height_and_width_open(fitted):
    graph = onnx.load_from_string(fitted.features).graph
    for value, fixed in ((graph.input[0], {3}), *((output, {1}) for output in graph.output)):
        dims = value.type.tensor_type.shape.dim
        assert {axis for axis, dim in enumerate(dims) if dim.HasField("dim_value")} == fixed


def test_statistics_are_those_of_every_position_of_the_web_once(network, good, fitted):
    _, pieces = held_out_and_fitted(good, fitted)
    values = np.concatenate([embeddings_of(network, piece.load()).reshape(-1, 16) for piece in pieces])
    values = values.astype(np.float64)
    np.testing.assert_allclose(fitted.statistics["means"][0, 0], values.mean(axis=0), rtol=1e-4, atol=1e-5)
    covariance = np.cov(values.T)
    covariance += 0.01 * np.trace(covariance) / 16 * np.eye(16)
    lower = kernels.unpack(fitted.statistics["factors"][0, 0], 16) * fitted.statistics["scales"][0, 0]
    np.testing.assert_allclose(lower @ covariance @ lower.T, np.eye(16), atol=2e-3)


def test_the_threshold_is_of_the_maxima_of_held_out_strips(good, fitted):
    held_out, _ = held_out_and_fitted(good, fitted)
    rows, maxima = STRIP // MAP_STRIDE, []
    with WebInspector(fitted, WIDTH, backend="onnxruntime") as inspector:
        for piece in held_out:
            values, mask = inspector.inspect_piece(piece.load())
            assert mask.all()
            maxima += [values[row : row + rows].max() for row in range(0, len(values), rows)]
    assert len(maxima) >= 9
    np.testing.assert_allclose(fitted.statistics["calibration_scores"], np.sort(maxima), rtol=1e-5)
    assert fitted.manifest.threshold.score == pytest.approx(conformal.threshold(np.array(maxima), 0.1), rel=1e-5)
    assert fitted.manifest.threshold.calibration_images == len(maxima)


def test_strips_and_tiles_of_other_sizes_give_the_same_map(fitted):
    piece = weave(200, WIDTH, 99)
    maps = []
    for strip, tile in ((STRIP, TILE), (8, 8), (200, 152), (64, 40)):
        for backend in ("onnxruntime", "openvino"):
            with WebInspector(fitted, WIDTH, strip_lines=strip, tile_px=tile, backend=backend) as inspector:
                maps.append(inspector.inspect_piece(piece)[0])
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-4)


def test_good_web_passes_and_a_flaw_does_not(fitted):
    piece = weave(200, WIDTH, 99)
    with WebInspector(fitted, WIDTH, backend="onnxruntime") as inspector:
        good_rows = inspector.inspect_piece(piece)[0].max(axis=1)
        flaw(piece, 90, 60)
        flawed = inspector.inspect_piece(piece)[0]
    threshold = fitted.manifest.threshold.score
    assert np.median(good_rows) < threshold < flawed.max()
    row, column = np.unravel_index(flawed.argmax(), flawed.shape)
    assert abs(row * MAP_STRIDE - 95) <= 8
    assert abs(column * MAP_STRIDE - 65) <= 8


def test_parity_and_golden_windows_hold(fitted, capsys):
    assert fitted.manifest.parity["relative_error_max"] <= 1e-4
    assert fitted.manifest.parity["factor_error_max"] <= 1e-5
    assert main(["verify", str(fitted.path)]) == 0
    assert main(["info", str(fitted.path)]) == 0
    assert "strips of 32 lines in tiles of 64 px, with 16 px of context (ring 8 px)" in capsys.readouterr().out


def test_two_fits_with_one_seed_are_equal_byte_for_byte(network, good, fitted, tmp_path):
    assert fit(network, good, tmp_path / "again.flaw").hash == fitted.hash


def test_a_source_is_fitted_as_one_web(network, good, fitted, tmp_path):
    joined = fit(network, f"replay:{good}?block=50", tmp_path / "joined.flaw")
    assert joined.manifest.fit.images + joined.manifest.fit.calibration_images == -(-(96 + 86) * 7 // STRIP)
    np.testing.assert_allclose(
        joined.statistics["means"], fitted.statistics["means"], atol=0.1 * np.abs(fitted.statistics["means"]).max()
    )


@pytest.mark.parametrize(
    "statistics",
    [
        {"tie": "global", "components": 3},
        {"tie": "column"},
        {"tie": "column", "components": 2},
        {"tie": "column", "factors": "fp16", "shrinkage": 0.2},
        {"tie": "global", "factors": "int8"},
    ],
)
def test_every_model_of_normal_finds_the_flaw(network, good, tmp_path, statistics):
    bundle = fit(network, good, tmp_path / "web.flaw", statistics=statistics)
    columns = (-(-WIDTH // STRIDE) * STRIDE + 16) // MAP_STRIDE
    assert bundle.manifest.gaussian.count == (columns if statistics["tie"] == "column" else 1)
    assert bundle.manifest.gaussian.components == statistics.get("components", 1)
    piece = weave(100, WIDTH, 99)
    flaw(piece, 40, 60)
    with WebInspector(bundle, WIDTH, backend="onnxruntime") as inspector:
        assert inspector.inspect_piece(piece)[0].max() > bundle.manifest.threshold.score


def test_columns_have_the_statistics_of_their_own_positions(network, good, tmp_path):
    bundle = fit(network, good, tmp_path / "web.flaw", statistics={"tie": "column"})
    _, pieces = held_out_and_fitted(good, bundle)
    values = np.concatenate([embeddings_of(network, piece.load()) for piece in pieces]).astype(np.float64)
    means, ring = bundle.statistics["means"][:, 0], 2
    columns = values.shape[1]
    np.testing.assert_allclose(means[ring : ring + columns], values.mean(axis=0), rtol=1e-4, atol=1e-4)
    # The ring, and what lies beyond the last column, is never web.
    np.testing.assert_array_equal(means[:ring], means[[ring, ring]])
    np.testing.assert_array_equal(means[ring + columns :], means[[ring + columns - 1] * (len(means) - ring - columns)])


def test_what_lies_beside_the_web_takes_no_part(network, tmp_path):
    beside = pieces_of_web(tmp_path / "beside", width=300, table=TABLE)
    bundle = fit(network, beside, tmp_path / "beside.flaw", web={"margin_px": MARGIN})
    assert bundle.manifest.web.edges.margin_px == MARGIN
    _, pieces = held_out_and_fitted(beside, bundle)
    first = -(-(TABLE + MARGIN) // MAP_STRIDE)
    values = [embeddings_of(network, piece.load())[:, first : (300 - MARGIN) // MAP_STRIDE] for piece in pieces]
    values = np.concatenate([value.reshape(-1, 16) for value in values]).astype(np.float64)
    np.testing.assert_allclose(bundle.statistics["means"][0, 0], values.mean(axis=0), rtol=1e-3, atol=1e-3)
    # The table itself is nothing like the web, and no flaw.
    with WebInspector(bundle, 300, backend="onnxruntime") as inspector:
        distances, mask = inspector.inspect_piece(pieces[0].load())
    assert not mask[:, : TABLE // MAP_STRIDE].any()
    assert mask[:, first : (300 - MARGIN) // MAP_STRIDE].all()
    assert distances.max() < 3 * bundle.manifest.threshold.score


def test_shading_is_taken_out_in_the_fit(network, tmp_path):
    folder = tmp_path / "shaded"
    pieces_of_web(folder)
    for path in folder.iterdir():
        pixels = (read_pieces(str(path))[0].load() * np.linspace(0.4, 1.2, WIDTH)).clip(0, 255).astype(np.uint8)
        write_image(path, pixels)
    bundle = fit(network, folder, tmp_path / "shaded.flaw", web={"shading_px": 41})
    shading = bundle.manifest.web.shading
    assert shading.width_px == 41
    assert shading.target == pytest.approx(0.8 * 130, abs=8)
    with WebInspector(bundle, WIDTH, backend="onnxruntime") as inspector:
        even = inspector.inspect_piece(weave(96, WIDTH, 50))[0].max()
        slope = (weave(96, WIDTH, 50) * np.linspace(1.1, 0.5, WIDTH)).clip(0, 255).astype(np.uint8)
        sloped = inspector.inspect_piece(slope)[0].max()
    assert max(even, sloped) < 1.5 * bundle.manifest.threshold.score


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_fabric_is_fitted_and_scored_without_seams(shared_data, tmp_path):
    """Five strips of fabric, 512 px of each, as one web for ResNet-18."""
    folder = tmp_path / "fabric"
    folder.mkdir()
    for path in sorted((shared_data / "aitex" / "good" / "02").iterdir())[:5]:
        write_image(folder / path.name, np.ascontiguousarray(read_pieces(str(path))[0].load()[:, 1500:2012]))
    weights = next((shared_data / "resnet18").glob("*.npz"))
    bundle = fit_web_bundle(
        f"replay:{folder}",
        tmp_path / "fabric.flaw",
        FitOptions(
            backbone="resnet18",
            weights=str(weights),
            dimension=16,
            false_reject_rate=0.2,
            threads=2,
            statistics=StatisticsOptions(tie="global"),
        ),
        WebOptions(strip_lines=128, tile_px=256, margin_px=None),
    )
    manifest = bundle.manifest
    assert (manifest.web.halo, manifest.web.ring) == (128, 16)
    assert manifest.parity["reference"].startswith("torch features in float64")
    assert manifest.parity["relative_error_max"] <= 2e-3
    # A line of threads missing, across a seam of strips and one of tiles.
    piece = np.array(read_pieces(f"replay:{folder}")[0].load()[:512])
    piece[250:262, 200:320] = piece[250:262, 200:320] // 4
    maps = []
    for strip, tile in ((128, 256), (64, 128), (512, 512)):
        with WebInspector(bundle, 512, strip_lines=strip, tile_px=tile, backend="onnxruntime", threads=2) as inspector:
            maps.append(inspector.inspect_piece(piece)[0])
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-4)
    assert maps[0].max() > manifest.threshold.score
    row, column = np.unravel_index(maps[0].argmax(), maps[0].shape)
    assert abs(4 * row - 256) < 32
    assert 180 < 4 * column < 340
