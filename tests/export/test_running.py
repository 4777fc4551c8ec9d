"""A network that fails while it runs, as one does that reads beyond a tensor: one line that names its file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from flawline.__main__ import main
from flawline.export.calibrated import calibrate, open_session, run_session
from flawline.export.converting import running
from flawline.export.features import open_backbone
from flawline.export.graph import compose
from flawline.export.sensitivity import sensitivity
from flawline.runtime.errors import EngineError, InputError

DARK, BRIGHT = (np.full((64, 64, 1), value, np.uint8) for value in (0, 255))


@pytest.fixture(scope="module")
def fragile(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network, which takes the channels from a place that depends on the brightest pixel, if there is such a place."""
    model = onnx.load(tiny_network)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.arange(8), "channels"))
    first, *others = graph.node
    del graph.node[:]
    graph.node.extend(
        [
            first,
            helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["shift"], to=onnx.TensorProto.INT64),
            helper.make_node("Add", ["channels", "shift"], ["places"]),
            helper.make_node("Gather", ["conv_1", "places"], ["taken"], axis=1, name="take"),
        ]
    )
    others[0].input[0] = "taken"
    graph.node.extend(others)
    path = tmp_path_factory.mktemp("fragile") / "fragile.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def features(fragile: Path) -> bytes:
    layers = ("fine", "coarse")
    backbone = open_backbone(str(fragile), layers=layers, weights=None, image_size=64, mean=None, std=None, seed=0)
    composed, _ = compose(
        backbone.graph,
        height=64,
        width=64,
        channels=1,
        mean=backbone.mean,
        std=backbone.std,
        projection=None,
        map_stride=None,
    )
    return composed


def test_a_failure_while_calibrating_is_an_engine_error(features: bytes) -> None:
    with pytest.raises(EngineError, match=r"^ONNX Runtime fails while it runs the feature graph: .*take.*$") as caught:
        calibrate(features, [DARK, BRIGHT], 2)
    assert "\n" not in str(caught.value)


def test_a_failure_while_layers_are_compared_is_an_engine_error(features: bytes) -> None:
    calibrated = calibrate(features, [DARK], 1)
    with pytest.raises(EngineError, match="fails while it runs the feature graph"):
        sensitivity(calibrated, [BRIGHT], "int8")


def test_a_failure_of_another_file_is_told_by_its_name(features: bytes) -> None:
    session = open_session(features, 1)
    assert len(run_session(session, None, DARK[None], "the file")) == 2
    with pytest.raises(EngineError, match="fails while it runs the file: "):
        run_session(session, None, BRIGHT[None], "the file")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fit_names_the_network_that_fails(
    precision: str, fragile: Path, good_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--layers fine,coarse --image-size 64 --dim 10 --threads 1 --precision {precision}".split()
    out = tmp_path / "made.flaw"
    assert main(["fit", str(good_images), "--out", str(out), "--backbone", str(fragile), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("flawline fit: ")]
    assert lines == captured.err.splitlines()[-1:]
    assert lines[0].startswith(f"flawline fit: {fragile}: ONNX Runtime fail")
    assert list(tmp_path.iterdir()) == []


def test_what_says_itself_what_is_at_fault_is_left_as_it_is(features: bytes) -> None:
    with pytest.raises(InputError, match=r"^calibration frame 0 is uint8"), running("net.onnx"):
        calibrate(features, [DARK[:32]], 1)
    with pytest.raises(EngineError, match=r"^net\.onnx: ONNX Runtime fails"), running("net.onnx"):
        calibrate(features, [BRIGHT], 1)
