"""The graph of both autoencoders on real digits: equal to torch and autograd by every engine, for grey and for colour."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from flawline.detectors.autoencoder import Autoencoder
from flawline.detectors.autoencoders import AUTOENCODERS, build_autoencoder
from flawline.detectors.training import train
from flawline.detectors.training_images import ArrayImages
from flawline.detectors.training_options import TrainingOptions
from flawline.export.autoencoder import export_autoencoder
from flawline.export.autoencoder_graph import Output, compose_autoencoder
from flawline.export.feature_graph import FeatureGraph, cut
from flawline.export.nodes import Nodes
from flawline.export.saliency import propagate_back
from flawline.runtime.errors import InputError
from tests.runtime.gpu.tensorrt_packages import tensorrt_folder

Array = npt.NDArray[Any]
Maps = dict[str, Array]
Network = Callable[[torch.Tensor], torch.Tensor]
ALL: tuple[Output, ...] = ("reconstruction", "error", "saliency")

TOLERANCE = 1e-4
"""Of a map, relative to its image's largest value."""

ORDINARY = {
    "Abs", "Add", "Cast", "Conv", "ConvTranspose", "Div", "Gemm", "Greater", "LeakyRelu", "Mul", "Pad", "ReduceMax",
    "ReduceMean", "Relu", "Reshape", "Sigmoid", "Sub", "Transpose", "Where",
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(digits: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]) -> npt.NDArray[np.uint8]:
    """The first 100 are trained on, 12 are held out."""
    return digits[0][:112]


@pytest.fixture(scope="module", params=AUTOENCODERS)
def trained(request: pytest.FixtureRequest, digits: npt.NDArray[np.uint8]) -> tuple[Autoencoder, FeatureGraph]:
    network = build_autoencoder(request.param, 28, 28, bottleneck=32, seed=2)
    options = TrainingOptions(epochs=3, batch_size=25, learning_rate=3e-3)
    train(network, ArrayImages(digits[:100]), options)
    return network, export_autoencoder(network)


@pytest.fixture(scope="module", params=AUTOENCODERS)
def coloured(request: pytest.FixtureRequest) -> tuple[Autoencoder, FeatureGraph]:
    network = build_autoencoder(request.param, 16, 20, channels=3, bottleneck=8).eval()
    return network, export_autoencoder(network)


def autograd(network: Network, frames: npt.NDArray[np.uint8]) -> Maps:
    """The paper's equations 1 to 3, by torch, of frames (N, channels, height, width); all but the saliency in grey levels."""
    x = (torch.from_numpy(frames).float() / 255).requires_grad_()
    reconstruction = network(x)
    error = (x - reconstruction).square()
    error.mean((1, 2, 3)).sum().backward()
    assert x.grad is not None
    return {
        "reconstruction": 255 * reconstruction.detach().numpy(),
        "error": 255**2 * error.mean(1, keepdim=True).detach().numpy(),
        "saliency": x.grad.abs().amax(1, keepdim=True).numpy(),
    }


def by_onnxruntime(model: bytes, feeds: Maps) -> Maps:
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def by_openvino(model: bytes, feeds: Maps) -> Maps:
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    results = compiled(feeds)
    return {output.any_name: np.asarray(results[output]) for output in compiled.outputs}


ENGINES = pytest.mark.parametrize("engine", [by_onnxruntime, by_openvino])
Engine = Callable[[bytes, Maps], Maps]


def assert_equal(received: Maps, expected: Maps) -> None:
    assert received.keys() == expected.keys()
    for name, maps in expected.items():
        assert received[name].shape == maps.shape
        assert received[name].dtype == np.float32
        largest = np.abs(maps).max(axis=(1, 2, 3), keepdims=True)
        assert (np.abs(received[name] - maps) <= TOLERANCE * largest).all(), name


def laid_out(frames: npt.NDArray[np.uint8], layout: str) -> npt.NDArray[np.uint8]:
    return frames if layout == "nchw" else np.ascontiguousarray(frames.transpose(0, 2, 3, 1))


@ENGINES
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("batch", [1, 12])
def test_maps_are_those_of_autograd(
    trained: tuple[Autoencoder, FeatureGraph],
    digits: npt.NDArray[np.uint8],
    engine: Engine,
    layout: Literal["nhwc", "nchw"],
    batch: int,
) -> None:
    network, graph = trained
    frames = digits[100 : 100 + batch, None]
    model = compose_autoencoder(graph, ALL, layout=layout)
    assert_equal(engine(model, {"frame": laid_out(frames, layout)}), autograd(network, frames))


@ENGINES
def test_backward_pass_through_the_network_is_that_of_autograd(
    trained: tuple[Autoencoder, FeatureGraph], digits: npt.NDArray[np.uint8], engine: Engine
) -> None:
    """By itself: in the saliency map the residual, which needs no network, outweighs it."""
    network, graph = trained
    nodes = Nodes()
    through = propagate_back(graph.model, graph.input, graph.layers[0], "seed", nodes)
    nodes.add("Identity", [through], "gradient")
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.node.extend(nodes.nodes)
    model.graph.initializer.extend(nodes.constants)
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 28, 28]) for name in ("seed", "gradient")]
    model.graph.input.append(shapes[0])
    del model.graph.output[:]
    model.graph.output.append(shapes[1])
    images = digits[100:, None].astype(np.float32) / 255
    seed = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    x = torch.from_numpy(images).requires_grad_()
    network(x).backward(torch.from_numpy(seed))
    assert x.grad is not None
    assert_equal(engine(model.SerializeToString(), {graph.input: images, "seed": seed}), {"gradient": x.grad.numpy()})


@ENGINES
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_maps_of_colour_are_those_of_autograd(
    coloured: tuple[Autoencoder, FeatureGraph], engine: Engine, layout: Literal["nhwc", "nchw"]
) -> None:
    network, graph = coloured
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 20), np.uint8)
    model = compose_autoencoder(graph, ALL, layout=layout)
    assert_equal(engine(model, {"frame": laid_out(frames, layout)}), autograd(network, frames))


def test_graph_holds_ordinary_operators_and_is_the_same_each_time(trained: tuple[Autoencoder, FeatureGraph]) -> None:
    _, graph = trained
    composed = compose_autoencoder(graph, ALL)
    model = onnx.load_from_string(composed)
    assert {node.op_type for node in model.graph.node} <= ORDINARY
    assert all(entry.domain in ("", "ai.onnx") for entry in model.opset_import)
    assert composed == compose_autoencoder(graph, ALL)


def test_outputs_can_be_chosen_and_only_the_saliency_takes_a_backward_pass(
    trained: tuple[Autoencoder, FeatureGraph], digits: npt.NDArray[np.uint8]
) -> None:
    network, graph = trained
    frames = digits[100:102, None]
    expected = autograd(network, frames)
    for name in ALL:
        received = by_onnxruntime(compose_autoencoder(graph, [name], layout="nchw"), {"frame": frames})
        assert_equal(received, {name: expected[name]})
    nodes = {name: len(onnx.load_from_string(compose_autoencoder(graph, [name])).graph.node) for name in ALL}
    assert nodes["reconstruction"] == len(graph.model.graph.node) + 4
    assert nodes["saliency"] > 2 * nodes["reconstruction"]


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_network_of_every_supported_opset_has_a_saliency_graph(opset: int) -> None:
    """A network from elsewhere: a convolution and back, for three channels."""
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    model = network_of(
        [
            helper.make_node("Conv", ["x", "w"], ["code"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Tanh", ["code"], ["squeezed"]),
            helper.make_node("ConvTranspose", ["squeezed", "w"], ["y"], strides=[2, 2], pads=[1, 1, 0, 0]),
        ],
        {"w": weight},
        opset,
    )
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 12), np.uint8)
    composed = compose_autoencoder(cut(model, ["y"], 8, 12, origin="small"), ALL, layout="nchw")
    kernel = torch.from_numpy(weight)

    def network(x: torch.Tensor) -> torch.Tensor:
        code = torch.tanh(torch.nn.functional.conv2d(x, kernel, stride=2, padding=1))
        return torch.nn.functional.conv_transpose2d(code, kernel, stride=2, padding=1, output_padding=1)

    assert_equal(by_onnxruntime(composed, {"frame": frames}), autograd(network, frames))


def network_of(nodes: list[onnx.NodeProto], constants: Maps, opset: int = 18) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 12])],
        [onnx.ValueInfoProto(name=nodes[-1].output[0])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_network_that_gives_no_image_of_its_size_is_refused() -> None:
    model = network_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": np.ones((3, 3, 3, 3), np.float32)})
    message = "a network that gives 3 x 6 x 10; expected a reconstruction of 3 x 8 x 12"
    with pytest.raises(InputError, match=message):
        compose_autoencoder(cut(model, ["y"], 8, 12, origin="small"))


def test_network_without_a_gradient_still_has_a_reconstruction() -> None:
    model = network_of([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {})
    graph = cut(model, ["y"], 8, 12, origin="small")
    with pytest.raises(InputError, match=r"node network/y \(Softmax\) is of an operator without a gradient here"):
        compose_autoencoder(graph, ALL)
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 12), np.uint8)
    received = by_onnxruntime(compose_autoencoder(graph, layout="nchw"), {"frame": frames})
    expected = 255 * (torch.from_numpy(frames).float() / 255).softmax(1).numpy()
    assert_equal(received, {"reconstruction": expected})


BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
import tensorrt_rtx_bindings as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network()
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[2]):
    sys.exit(parser.get_error(0).desc())
profile, config = builder.create_optimization_profile(), builder.create_builder_config()
profile.set_shape("frame", (1, 28, 28, 1), (4, 28, 28, 1), (4, 28, 28, 1))
config.add_optimization_profile(profile)
sys.exit(0 if builder.build_serialized_network(network, config).nbytes > 100_000 else "no plan")
"""


def test_tensorrt_builds_an_engine_of_it(trained: tuple[Autoencoder, FeatureGraph], tmp_path: Path) -> None:
    folder = tensorrt_folder("rtx")
    path = tmp_path / "autoencoder.onnx"
    path.write_bytes(compose_autoencoder(trained[1], ("reconstruction", "saliency")))
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(folder), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
