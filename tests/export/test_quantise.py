"""Feature graphs in 8 bits, run by ONNX Runtime and OpenVINO, against the float graph."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flawline.export.calibrated import calibrate
from flawline.export.quantise import quantise
from flawline.runtime.backends import open_backend
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import Quantised

PRECISIONS: tuple[Quantised, ...] = get_args(Quantised)
ASYMMETRIC: tuple[Quantised, ...] = ("int8", "int8-openvino")
# Relative L2 distance of the features to the float graph's. A layer dropped or a wrong zero point gives 0.5 and more.
BOUNDS = {"int8": 0.04, "int8-openvino": 0.04, "int8-tensorrt": 0.08}
TRACE = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from pathlib import Path
import numpy as np
from flawline.export.calibrated import calibrate
from flawline.export.quantise import quantise
frames = np.load(sys.argv[2])
calibrated = calibrate(Path(sys.argv[1]).read_bytes(), frames, len(frames))
for precision in ("int8", "int8-openvino", "int8-tensorrt"):
    Path(sys.argv[3], precision).write_bytes(quantise(calibrated, precision))
"""


def quantised(network: Any, precision: Quantised) -> onnx.ModelProto:
    return onnx.load_from_string(quantise(network.calibrated, precision))


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def openvino_features(network: Any, model: bytes) -> list[npt.NDArray[np.float32]]:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    openvino = LazyModule("openvino", "pip install openvino", without=("openvino_telemetry",))
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({0: np.stack(network.compared)})
    return [np.array(results[output]) for output in compiled.outputs]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_features_stay_close(precision: Quantised, channels: int, tiny: Callable[[int], Any]) -> None:
    network = tiny(channels)
    assert (
        max(network.errors(network.run(quantise(network.calibrated, precision), precision=precision)))
        < BOUNDS[precision]
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_features_of_depthwise_networks_stay_close(precision: Quantised, lite0: Any) -> None:
    assert max(lite0.errors(lite0.run(quantise(lite0.calibrated, precision), precision=precision))) < 0.2


def test_what_tensorrt_will_compute_is_not_what_this_processor_fuses(lite0: Any) -> None:
    # Statistics are collected through this backend, so that its sums must not saturate on a processor without VNNI.
    model = quantise(lite0.calibrated, "int8-tensorrt")
    frames = np.stack(lite0.compared)
    expected = lite0.run(model, precision="int8-tensorrt")
    backend = open_backend(
        "onnxruntime", model, frames.shape, [features.shape for features in expected], precision="int8-tensorrt"
    )
    backend.input[...] = frames
    backend.infer()
    for received, want in zip(backend.outputs, expected, strict=True):
        assert np.abs(received - want).max() <= 1e-4 * np.abs(want).max()
    backend.close()


@pytest.mark.shared_data
@pytest.mark.parametrize("precision", PRECISIONS)
def test_features_of_real_images_stay_close(precision: Quantised, resnet18: Any) -> None:
    assert (
        max(resnet18.errors(resnet18.run(quantise(resnet18.calibrated, precision), precision=precision)))
        < 2 * BOUNDS[precision]
    )


@pytest.mark.parametrize("precision", ASYMMETRIC)
def test_openvino_computes_the_same_within_its_rounding(precision: Quantised, lite0: Any) -> None:
    assert max(lite0.errors(openvino_features(lite0, quantise(lite0.calibrated, precision)))) < 0.2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_gives_what_its_frames_give(precision: Quantised, lite0: Any) -> None:
    model = quantise(lite0.calibrated, precision)
    for alone, together in zip(*(lite0.run(model, batch, precision) for batch in (1, 3)), strict=True):
        assert np.abs(alone - together).max() <= 1e-4 * np.abs(alone).max()


@pytest.mark.parametrize("precision", ASYMMETRIC)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_frame_is_the_quantised_input(precision: Quantised, channels: int, tiny: Callable[[int], Any]) -> None:
    model = quantised(tiny(channels), precision)
    assert not {"Cast", "Sub"}.intersection(node.op_type for node in model.graph.node)
    givers = {node.output[0]: node for node in model.graph.node}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    dequantise = givers[first.input[0]]
    scale, zero = (constants(model)[name] for name in dequantise.input[1:])
    assert (scale.item(), zero.item(), zero.dtype) == (1.0, 114, np.uint8)
    together = givers[dequantise.input[0]]
    assert together.op_type == "Concat"
    assert givers[together.input[1]].op_type == "Clip"
    assert givers[together.input[0]].op_type == "Transpose"
    assert givers[together.input[0]].input[0] == "frame"


@pytest.mark.parametrize("precision", ASYMMETRIC)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_planes_of_the_quantised_input_are_those_of_the_float_graph(
    precision: Quantised, channels: int, tiny: Callable[[int], Any]
) -> None:
    network = tiny(channels)
    inputs = []
    for features in (network.calibrated.model.SerializeToString(), quantise(network.calibrated, precision)):
        model = onnx.load_from_string(features)
        first = next(node for node in model.graph.node if node.op_type == "Conv")
        model.graph.output.append(onnx.ValueInfoProto(name=first.input[0]))
        inputs.append(network.run(model.SerializeToString())[-1])
    assert np.array_equal(*inputs)


@pytest.mark.parametrize("channels", [1, 3])
def test_centring_on_a_whole_number_changes_no_feature(channels: int, tiny: Callable[[int], Any]) -> None:
    network = tiny(channels)
    assert max(network.errors(network.run(network.calibrated.model.SerializeToString()))) < 1e-6


def test_a_frame_that_two_layers_read_is_quantised_after_its_means_are_subtracted(lite0: Any) -> None:
    model = onnx.load_from_string(lite0.features)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    twice = helper.make_node("Relu", [first.input[0]], ["image/unused"])
    model.graph.node.insert(list(model.graph.node).index(first), twice)
    calibrated = calibrate(model.SerializeToString(), lite0.calibration, 0)
    quantised_behind = quantise(calibrated, "int8-openvino")
    operators = [node.op_type for node in onnx.load_from_string(quantised_behind).graph.node]
    assert {"Cast", "Sub"} < set(operators)
    assert "Pad" not in operators
    assert max(lite0.errors(lite0.run(quantised_behind))) < 0.2


def test_tensorrt_gets_no_zero_points_and_no_integer_biases(lite0: Any) -> None:
    model = quantised(lite0, "int8-tensorrt")
    values = constants(model)
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        assert values[node.input[2]].dtype == np.int8
        assert not values[node.input[2]].any()
    assert all(
        values[node.input[2]].dtype == np.float32
        for node in model.graph.node
        if node.op_type == "Conv" and len(node.input) == 3
    )


def test_projections_stay_in_float_for_onnxruntime(lite0: Any) -> None:
    model = quantised(lite0, "int8")
    outputs = [value.name for value in model.graph.output]
    projections = [node for node in model.graph.node if node.output[0] in outputs]
    assert [constants(model)[node.input[1]].dtype for node in projections] == [np.float32, np.float32]


def test_layers_to_keep_stay_in_float(lite0: Any) -> None:
    kept = [node.name for node in lite0.calibrated.convolutions][:2]
    model = onnx.load_from_string(quantise(lite0.calibrated, "int8", keep_float=kept))
    for node in model.graph.node:
        if node.name in kept:
            assert constants(model)[node.input[1]].dtype == np.float32
    assert max(lite0.errors(lite0.run(model.SerializeToString()))) < 0.2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_file_is_whole_and_holds_nothing_unused(precision: Quantised, lite0: Any) -> None:
    model = quantised(lite0, precision)
    onnx.checker.check_model(model, full_check=True)
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    float_model = onnx.load_from_string(lite0.features)
    assert model.graph.input == float_model.graph.input
    assert model.graph.output == float_model.graph.output
    assert model.producer_name == "flawline"
    assert not model.metadata_props
    assert len(model.SerializeToString()) < len(lite0.features) / 2.5


def test_the_same_bytes_on_any_number_of_threads(lite0: Any) -> None:
    threaded = calibrate(lite0.features, iter(lite0.calibration), len(lite0.calibration), threads=2)
    assert quantise(threaded, "int8") == quantise(lite0.calibrated, "int8")


def test_another_process_writes_the_same_bytes_and_nothing_else(tiny: Callable[[int], Any], tmp_path: Path) -> None:
    network = tiny(3)
    (tmp_path / "graph.onnx").write_bytes(network.features)
    np.save(tmp_path / "frames.npy", np.stack(network.calibration))
    for folder in ("out", "temporary", "here"):
        (tmp_path / folder).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", TRACE, tmp_path / "graph.onnx", tmp_path / "frames.npy", tmp_path / "out"],
        capture_output=True,
        cwd=tmp_path / "here",
        env={"TMPDIR": str(tmp_path / "temporary"), "PYTHONHASHSEED": "7", "PATH": ""},
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [*(tmp_path / "temporary").iterdir(), *(tmp_path / "here").iterdir()]
    for precision in PRECISIONS:
        assert (tmp_path / "out" / precision).read_bytes() == quantise(network.calibrated, precision)


def test_no_frames_are_refused(tiny: Callable[[int], Any]) -> None:
    with pytest.raises(InputError, match="no calibration frames; expected good images"):
        calibrate(tiny(1).features, [], 0)


def test_frames_of_another_shape_are_refused(tiny: Callable[[int], Any]) -> None:
    with pytest.raises(InputError, match=r"frame 0 is uint8 \(64, 32, 1\); expected uint8 \(64, 64, 1\)"):
        calibrate(tiny(1).features, [np.zeros((64, 32, 1), np.uint8)], 1)


def test_features_that_are_not_finite_are_refused(tiny: Callable[[int], Any]) -> None:
    model = onnx.load_from_string(tiny(1).features)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "network/weight_2")
    values = numpy_helper.to_array(weight).copy()
    values[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(InputError, match="tensor network/conv_2 holds NaN or infinity on calibration frame 0"):
        calibrate(model.SerializeToString(), tiny(1).calibration, 1)


def test_a_network_without_convolutions_is_refused() -> None:
    nodes = [helper.make_node("Cast", ["frame"], ["features_0"], to=TensorProto.FLOAT)]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ("N", 1, 8, 8))
    maps = helper.make_tensor_value_info("features_0", TensorProto.FLOAT, ("N", 1, 8, 8))
    model = helper.make_model(
        helper.make_graph(nodes, "cast", [frame], [maps]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    with pytest.raises(InputError, match="no convolution of constant weights"):
        calibrate(model.SerializeToString(), [np.zeros((1, 8, 8), np.uint8)], 1)


def test_a_quantised_network_is_refused(tiny: Callable[[int], Any]) -> None:
    network = tiny(1)
    again = calibrate(quantise(network.calibrated, "int8"), network.calibration, 1)
    with pytest.raises(InputError, match=r"layer .* \(DequantizeLinear\): int8-openvino wants a network"):
        quantise(again, "int8-openvino")


def test_unknown_names_are_refused(tiny: Callable[[int], Any]) -> None:
    with pytest.raises(InputError, match="no convolution is named conv_9; there are network/conv_1, network/conv_2"):
        quantise(tiny(1).calibrated, "int8", keep_float=["conv_9"])
    with pytest.raises(InputError, match="precision int4 is unknown; expected one of int8, int8-openvino"):
        quantise(tiny(1).calibrated, "int4")  # type: ignore[arg-type]
