"""A web in further precisions."""

import numpy as np
import pytest

from flawline.calibration.web_pieces import read_pieces
from flawline.export.addition import add_precision
from flawline.runtime import InputError
from flawline.runtime.web.inspector import WebInspector
from tests.export.web.fits import STRIP, WIDTH, fit, flaw, pieces_of_web, weave


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
