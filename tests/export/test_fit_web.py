"""Detectors for an endless web, fitted on small webs and held to what one run over the whole web gives."""

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage

from flawline.__main__ import main
from flawline.calibration import conformal
from flawline.calibration.statistics import StatisticsOptions
from flawline.calibration.web_flat_field import read_flat_field
from flawline.calibration.web_pieces import read_pieces, split_pieces
from flawline.export.addition import add_precision
from flawline.export.fit import fit_bundle
from flawline.export.fit_web import fit_web_bundle
from flawline.export.options import FitOptions, WebOptions
from flawline.runtime import InputError, kernels
from flawline.runtime import bundle as bundles
from flawline.runtime.images import write_image
from flawline.runtime.web.inspector import WebInspector

STRIP, TILE, WIDTH, MAP_STRIDE, STRIDE = 32, 64, 150, 4, 8
TABLE, MARGIN = 34, 6


def weave(lines, width, seed):
    """A regular weave with noise: uint8 (lines, width)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:lines, :width]
    values = 130 + 20 * np.sin(x * 0.8) + 15 * np.cos(y * 0.9) + generator.normal(0, 8, (lines, width))
    return np.clip(values, 0, 255).astype(np.uint8)


def pieces_of_web(folder, count=14, lines=96, width=WIDTH, *, table=0):
    folder.mkdir()
    for number in range(count):
        pixels = weave(lines - 10 * (number % 2), width, number)
        if table:
            pixels[:, :table] = 20 + (pixels[:, :table] >> 4)
        write_image(folder / f"{number:02}.png", pixels)
    return folder


def flaw(pixels, line, x):
    """Twelve lines and pixels of black and white."""
    pixels[line : line + 12, x : x + 12] = np.random.default_rng(0).choice([0, 255], (12, 12))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Three padded convolutions with feature tensors `fine` (stride 4) and `coarse` (stride 8), which see 3 and 7 px more."""
    generator = np.random.default_rng(7)
    widths, names = (3, 6, 8, 8), ("image", "first", "fine", "coarse")
    nodes, tensors = [], []
    for i in range(3):
        weight = generator.normal(0, 0.4, (widths[i + 1], widths[i], 3, 3)).astype(np.float32)
        tensors.append(numpy_helper.from_array(weight, f"weight_{i}"))
        nodes.append(
            helper.make_node("Conv", [names[i], f"weight_{i}"], [f"conv_{i}"], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"conv_{i}"], [names[i + 1]]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    last = helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["N", 8, "h", "w"])
    graph = helper.make_graph(nodes, "small", [image], [last], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("network") / "small.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return pieces_of_web(tmp_path_factory.mktemp("web") / "good")


def fit(network, good, out, *, statistics=None, web=None, **options):
    given = {
        "backbone": str(network),
        "layers": ("fine", "coarse"),
        "image_size": 64,
        "mean": (128.0,),
        "std": (40.0,),
        "projection": "none",
        "smoothing_px": 6.0,
        "false_reject_rate": 0.1,
        "threads": 1,
    }
    statistics = StatisticsOptions(**{"tie": "global", "factors": "fp32", **(statistics or {})})
    chosen = WebOptions(**{"strip_lines": STRIP, "tile_px": TILE, "margin_px": None, **(web or {})})
    return fit_web_bundle(str(good), out, FitOptions(**{**given, **options}, statistics=statistics), chosen)


@pytest.fixture(scope="module")
def fitted(network, good, tmp_path_factory):
    return fit(network, good, tmp_path_factory.mktemp("bundle") / "web.flaw")


def held_out_and_fitted(good, bundle):
    fitted, held_out = split_pieces(
        read_pieces(str(good)), STRIP, false_reject_rate=bundle.manifest.threshold.false_reject_rate, seed=0
    )
    return held_out, fitted


def embeddings_of(network, piece):
    """Embeddings of a piece from one run of the network over all of it, with context beyond its ends: (rows, w, 16)."""
    height, width = piece.shape
    edge = 4 * STRIDE
    padded = np.pad(piece, ((edge, edge + -height % STRIDE), (edge, edge + -width % STRIDE)), mode="reflect")
    model = onnx.load(network)
    model.graph.output.insert(0, onnx.ValueInfoProto(name="fine"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = ((padded.astype(np.float32) - 128) / 40)[None, None].repeat(3, axis=1)
    fine, coarse = session.run(None, {"image": image})
    size = fine.shape[2:]
    padded_maps = [
        np.pad(fine, ((0, 0), (0, 8), (0, 0), (0, 0))),
        np.pad(coarse, ((0, 0), (8, 0), (0, 0), (0, 0))),
    ]
    values = kernels.embeddings([np.ascontiguousarray(scale) for scale in padded_maps], size).reshape(*size, 16)
    first = edge // MAP_STRIDE
    return values[first : first - -height // MAP_STRIDE, first : first - -width // MAP_STRIDE]


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


LANE, LANES_WIDTH, BORDER = 40, 300, 140


def noise(lines, width, deviation, seed):
    """uint8 (lines, width)."""
    values = 130 + np.random.default_rng(seed).normal(0, deviation, (lines, width))
    return np.clip(values, 0, 255).astype(np.uint8)


def lanes_of_web(lines, seed):
    """A rough texture left of a border, a smooth one right of it; the fourth lane of eight shows both."""
    return np.hstack([noise(lines, BORDER, 30, seed), noise(lines, LANES_WIDTH - BORDER, 6, seed + 500)])


@pytest.fixture(scope="module")
def laned(network, tmp_path_factory):
    """Good web in lanes, a bundle that knows them, and one that does not."""
    folder = tmp_path_factory.mktemp("lanes")
    (folder / "good").mkdir()
    for number in range(14):
        write_image(folder / "good" / f"{number:02}.png", lanes_of_web(96, number))
    lanes = fit(network, folder / "good", folder / "lanes.flaw", statistics={"tie": "column", "lane_px": LANE})
    return folder / "good", lanes, fit(network, folder / "good", folder / "one.flaw")


def test_a_lane_has_the_statistics_of_its_columns_and_no_others(network, laned):
    good, bundle, _ = laned
    # The web of 300 px is 304 px in steps of the stride.
    assert (bundle.manifest.gaussian.count, bundle.manifest.gaussian.lane_px) == (8, LANE)
    _, pieces = held_out_and_fitted(good, bundle)
    values = np.concatenate([embeddings_of(network, piece.load()) for piece in pieces]).astype(np.float64)
    for lane in range(8):
        own = values[:, 10 * lane : 10 * (lane + 1)].reshape(-1, 16)
        np.testing.assert_allclose(bundle.statistics["means"][lane, 0], own.mean(axis=0), rtol=1e-3, atol=1e-3)
    # The ring goes with the outermost lanes.
    row = bundle.statistics["assignment"][: bundle.manifest.map.width]
    np.testing.assert_array_equal(row, [0, 0, *np.repeat(np.arange(7), 10), *[7] * 8])


def test_what_is_good_in_one_lane_is_a_defect_in_another_which_one_model_of_all_does_not_see(laned):
    _, lanes, one = laned
    clean, mixed = lanes_of_web(160, 99), lanes_of_web(160, 99)
    mixed[60:108, 220:268] = noise(160, LANES_WIDTH, 30, 7)[60:108, 220:268]
    of_threshold = {}
    for name, bundle in (("lanes", lanes), ("one", one)):
        with WebInspector(bundle, LANES_WIDTH, strip_lines=64, backend="onnxruntime") as inspector:
            good = inspector.inspect_piece(clean)[0] / bundle.manifest.threshold.score
            found = inspector.inspect_piece(mixed)[0] / bundle.manifest.threshold.score
        for lane in range(8):
            assert good[:, 10 * lane : 10 * (lane + 1)].mean() < 1
        of_threshold[name] = found[60 // 4 + 3 : 108 // 4 - 3, 220 // 4 + 3 : 268 // 4 - 3].mean()
    assert of_threshold["lanes"] > 2
    assert of_threshold["one"] < 1


def test_lanes_are_kept_when_a_precision_is_added(laned, tmp_path):
    good, bundle, _ = laned
    added = add_precision(bundle.path, "int8", read_pieces(str(good)), tmp_path / "added.flaw", threads=1)
    view = added.select("int8")
    assert (view.manifest.gaussian.count, view.manifest.gaussian.lane_px) == (8, LANE)
    np.testing.assert_array_equal(view.statistics["assignment"], bundle.statistics["assignment"])


def test_lanes_of_pictures_are_refused(good, network, tmp_path):
    model = StatisticsOptions(tie="column", lane_px=32)
    options = FitOptions(
        backbone=str(network), layers=("fine", "coarse"), image_size=64, false_reject_rate=0.2, statistics=model
    )
    with pytest.raises(InputError, match="lanes of 32 px are for webs"):
        fit_bundle(sorted(good.glob("*.png")), tmp_path / "x.flaw", options)
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("precision", ["int8", "int8-openvino", "bf16"])
def test_a_precision_is_fitted_and_added_alike(network, good, fitted, tmp_path, precision):
    if precision == "bf16":
        openvino = pytest.importorskip("openvino")
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this processor does not compute in bf16")
    alone = fit(network, good, tmp_path / "alone.flaw", precision=precision)
    assert alone.manifest.network.precision == precision
    assert alone.manifest.fidelity["rank_correlation"] > 0.5
    added = add_precision(fitted.path, precision, read_pieces(str(good)), tmp_path / "added.flaw", threads=1)
    assert added.precisions == ("fp32", precision)
    assert added.features == fitted.features
    assert added.manifest.web == fitted.manifest.web
    view = added.select(precision)
    assert view.features == alone.features
    np.testing.assert_array_equal(view.statistics["means"], alone.statistics["means"])
    assert view.manifest.threshold == alone.manifest.threshold
    piece = weave(100, WIDTH, 99)
    flaw(piece, 40, 60)
    maps = []
    for strip in (STRIP, 96):
        with WebInspector(view, WIDTH, strip_lines=strip, tile_px=strip) as inspector:
            maps.append(inspector.inspect_piece(piece)[0])
    assert maps[0].max() > view.manifest.threshold.score
    # Sums in bf16 are rounded by their place in a tile.
    np.testing.assert_allclose(maps[1], maps[0], rtol=0.1 if precision == "bf16" else 1e-4)


def test_another_web_than_the_one_fitted_is_refused_for_a_precision(good, fitted, tmp_path):
    other = pieces_of_web(tmp_path / "other", lines=97)
    with pytest.raises(InputError, match=r"is not the good web that .* was fitted on"):
        add_precision(fitted.path, "int8", read_pieces(str(other)), tmp_path / "added.flaw", threads=1)
    assert not (tmp_path / "added.flaw").exists()


def command(network, good, out, *more):
    options = "--strip-lines 32 --tile 64 --false-reject-rate 0.1 --no-edges --layers fine,coarse --threads 1"
    return main(["fit", str(good), "--web", "--out", str(out), "--backbone", str(network), *options.split(), *more])


def test_the_command_fits_adds_and_says_the_facts(network, good, tmp_path, capsys):
    out = tmp_path / "web.flaw"
    pitch = ("--pixel-pitch-mm", "0.1", "--line-pitch-mm", "0.25", "--shading", "64")
    assert command(network, good, out, "--json", "--dim", "8", *pitch) == 0
    facts = json.loads(capsys.readouterr().out)["manifest"]
    assert (facts["web"]["pixel_mm"], facts["web"]["line_mm"]) == (0.1, 0.25)
    assert facts["web"]["shading"]["width_px"] == 64
    assert facts["gaussian"]["tie"] == "global"
    added = tmp_path / "int8.flaw"
    assert main(["export", str(out), "--precision", "int8", "--images", str(good), "--out", str(added)]) == 0
    assert bundles.read(added).precisions == ("fp32", "int8")
    capsys.readouterr()
    assert main(["export", str(out), "--to", "standalone", "--out", str(tmp_path / "web.onnx")]) == 2
    assert "is for a web" in capsys.readouterr().err
    assert not (tmp_path / "web.onnx").exists()


@pytest.fixture(scope="module")
def striped(good, tmp_path_factory):
    """Good web and a flawed one as an uneven camera sees them, its flat field, and both webs with that taken out."""
    folder = tmp_path_factory.mktemp("striped")
    random = np.random.default_rng(8)
    dark, answer = random.integers(0, 20, WIDTH), random.uniform(0.6, 1.0, WIDTH)

    def seen(pixels):
        return np.clip(dark + answer * pixels.astype(np.float64), 0, 255).astype(np.uint8)

    for name, level in (("dark", 0), ("white", 220)):
        write_image(folder / f"{name}.png", seen(np.full((64, WIDTH), level, np.uint8)))
    references = ["--dark", str(folder / "dark.png"), "--white", str(folder / "white.png")]
    assert main(["camera", "flat-field", *references, "--out", str(folder / "camera.flat")]) == 0
    correct = read_flat_field(folder / "camera.flat").corrector((WIDTH,))
    flawed = weave(400, WIDTH, 99)
    flaw(flawed, 190, 60)
    for name in ("raw", "raw_flawed", "even", "even_flawed"):
        (folder / name).mkdir()
    for end, images in (
        ("", {piece.name: piece.load() for piece in read_pieces(str(good))}),
        ("_flawed", {"0.png": flawed}),
    ):
        for name, pixels in images.items():
            lines = seen(pixels)
            write_image(folder / f"raw{end}" / name, lines)
            correct(lines)
            write_image(folder / f"even{end}" / name, lines)
    return folder


def test_a_flat_field_is_taken_out_in_fit_and_stream_alike(network, striped, tmp_path, capsys):
    flat_field = str(striped / "camera.flat")
    raw, even = tmp_path / "raw.flaw", tmp_path / "even.flaw"
    assert command(network, striped / "raw", raw, "--flat-field", flat_field) == 0
    assert command(network, striped / "even", even) == 0
    known, unknown = bundles.read(raw), bundles.read(even)
    assert known.manifest.web.flat_field_sha256 == hashlib.sha256(Path(flat_field).read_bytes()).hexdigest()
    assert unknown.manifest.web.flat_field_sha256 is msgspec.UNSET
    for name, values in unknown.statistics.items():
        np.testing.assert_array_equal(known.statistics[name], values)
    defects = []
    for bundle, web, more in ((raw, "raw_flawed", ["--flat-field", flat_field]), (even, "even_flawed", [])):
        capsys.readouterr()
        source = f"replay:{striped / web}"
        assert main(["stream", str(bundle), "--source", source, "--json", "--backend", "onnxruntime", *more]) == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        defects.append([(event["box"], event["peak"]) for event in told if event["type"] == "defect"])
    assert defects[0] == defects[1] != []


def test_a_precision_is_added_with_the_flat_field_of_the_fit_alone(network, striped, tmp_path, capsys):
    flat_field, other = striped / "camera.flat", tmp_path / "other.flat"
    references = ["--dark", str(striped / "dark.png"), "--white", str(next((striped / "even_flawed").iterdir()))]
    assert main(["camera", "flat-field", *references, "--out", str(other)]) == 0
    out, without, added = tmp_path / "web.flaw", tmp_path / "without.flaw", tmp_path / "int8.flaw"
    assert command(network, striped / "raw", out, "--flat-field", str(flat_field)) == 0
    assert command(network, striped / "raw", without) == 0

    def export(bundle, *more):
        capsys.readouterr()
        words = ["--precision", "int8", "--images", str(striped / "raw"), "--out", str(added), *more]
        return main(["export", str(bundle), *words])

    refused(capsys, export(out), "web.flaw was fitted with a flat field; expected --flat-field with the same file")
    refused(capsys, export(out, "--flat-field", str(other)), "web.flaw was fitted with another flat field")
    refused(capsys, export(without, "--flat-field", str(flat_field)), "without.flaw was fitted without a flat field")
    assert not added.exists()
    assert export(out, "--flat-field", str(flat_field)) == 0
    assert bundles.read(added).manifest.web == bundles.read(out).manifest.web


def refused(capsys, status, message):
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert message in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tie", "position"), "--tie position is for aligned parts"),
        (("--tie", "column"), "--tile does not go with --tie column"),
        (("--lane", "40"), "lanes of 40 px with the tie global; expected column"),
        (("--edges-margin", "0"), "--edges-margin with --no-edges"),
        (("--pixel-pitch-mm", "0"), "a pitch of 0.0 mm for pixels; expected a positive number"),
        (("--line-pitch-mm", "nan"), "a pitch of nan mm for lines; expected a positive number"),
        (("--pixel-pitch-mm", "inf"), "a pitch of inf mm for pixels"),
        (("--strip-lines", "0"), "strips of 0 px; expected 1 to 8192"),
        (("--tile", "-8"), "tiles of -8 px; expected 1 to 16384"),
        (("--shading", "0"), "shading of 0 px; expected 1 to 65536"),
        (("--binning", "0"), "bins of 0 px; expected 1 to 64"),
        (("--shrinkage", "oas"), "--shrinkage oas is for pictures"),
        (("--flat-field", "nowhere.flat"), "nowhere.flat cannot be read"),
        (("--map-stride", "3"), "a map stride of 3 px; expected a divisor of 8"),
        (("--group-by", "x"), "--group-by is for folders of images"),
        (("--false-reject-rate", "0.001"), "needs 999 held-out strips, but no more than half"),
        (("--false-reject-rate", "1"), "false-reject rate is 1.0"),
        (("--labelled", "x"), "--labelled is for folders of images"),
    ],
)
def test_what_does_not_go_with_a_web_is_one_line_and_exit_2(network, good, tmp_path, capsys, more, message):
    refused(capsys, command(network, good, tmp_path / "web.flaw", *more), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "is_told"), [("8", True), ("64", False)])
def test_tiles_that_are_mostly_context_are_told(network, good, tmp_path, capsys, size, is_told):
    # Refused later on, for want of strips.
    more = ("--strip-lines", size, "--tile", size, "--false-reject-rate", "0.001")
    assert command(network, good, tmp_path / "web.flaw", *more) == 2
    said = capsys.readouterr().err
    # 8 px with 16 px of context on both sides are 40 px.
    assert (
        "the web goes through the network 25 times: wider tiles (--tile) or higher strips (--strip-lines) are faster"
        in said
    ) is is_told


@pytest.mark.parametrize("lane", ["0", "-8", "3", "150"])
def test_lanes_narrower_than_a_column_or_as_wide_as_the_web_are_refused(network, good, tmp_path, capsys, lane):
    options = "--tie column --strip-lines 32 --false-reject-rate 0.1 --no-edges --layers fine,coarse --lane"
    words = ["--web", "--out", str(tmp_path / "x.flaw"), "--backbone", str(network), *options.split(), lane]
    refused(capsys, main(["fit", str(good), *words]), f"lanes of {lane} px; expected 4, a column of the map, to 149")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "more",
    [
        ("--strip-lines", "32"),
        ("--tile", "64"),
        ("--edges-margin", "0"),
        ("--no-edges",),
        ("--line-pitch-mm", "1"),
        ("--binning", "2"),
        ("--lane", "32"),
        ("--flat-field", "camera.flat"),
    ],
)
def test_options_of_webs_need_web(good, tmp_path, capsys, more):
    refused(capsys, main(["fit", str(good), "--out", str(tmp_path / "x.flaw"), *more]), "is for webs; expected --web")


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere", "nowhere"), ("replay:nowhere", "nowhere does not exist"), ("bluetooth:x", "bluetooth")],
)
def test_web_that_is_not_there_is_one_line_and_exit_2(network, tmp_path, capsys, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    refused(capsys, command(network, source, tmp_path / "web.flaw"), message)


def test_a_network_that_is_not_fully_convolutional_is_refused_by_its_operator(good, tmp_path, capsys):
    weight = numpy_helper.from_array(np.ones((4, 3, 4, 4), np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["fine"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["fine"], ["mean"], name="squeeze"),
        helper.make_node("Mul", ["fine", "mean"], ["coarse"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    last = helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["N", 4, "h", "w"])
    graph = helper.make_graph(nodes, "squeezed", [image], [last], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "n.onnx")
    status = command(tmp_path / "n.onnx", good, tmp_path / "web.flaw")
    refused(capsys, status, "not fully convolutional: GlobalAveragePool squeeze")


def test_a_web_that_is_all_table_is_refused(network, tmp_path, capsys):
    folder = pieces_of_web(tmp_path / "web", width=150)
    options = "--strip-lines 32 --edges-margin 80 --false-reject-rate 0.1 --layers fine,coarse"
    out = tmp_path / "web.flaw"
    status = main(["fit", str(folder), "--web", "--out", str(out), "--backbone", str(network), *options.split()])
    refused(capsys, status, "no web lies between the edges")


def test_an_existing_path_is_refused_before_any_work(network, good, tmp_path):
    out = tmp_path / "web.flaw"
    Path(out).mkdir()
    with pytest.raises(InputError, match="exists"):
        fit(network, good, out)


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
