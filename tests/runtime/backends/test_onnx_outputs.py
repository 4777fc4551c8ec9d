"""An engine that is asked for some outputs of a graph computes these alone, and computes them alike."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from flawline.detectors.autoencoders import build_autoencoder
from flawline.export.autoencoder import export_autoencoder
from flawline.export.autoencoder_graph import compose_autoencoder
from flawline.export.feature_graph import FeatureGraph
from flawline.runtime.backends import Backend, installed, onnx_outputs, open_backend
from flawline.runtime.errors import BundleError, EngineError, FlawlineError

SIDE = 16
OUTPUTS = ("reconstruction", "saliency")
INPUT_SHAPE = (2, 1, SIDE, SIDE)


@pytest.fixture(scope="module", params=["convolutional", "fully-connected"])
def autoencoder(request: pytest.FixtureRequest) -> FeatureGraph:
    return export_autoencoder(build_autoencoder(request.param, SIDE, SIDE, bottleneck=8, seed=3))


def composed(autoencoder: FeatureGraph, outputs: Sequence[str] = OUTPUTS) -> bytes:
    return compose_autoencoder(autoencoder, outputs, layout="nchw")


def opened(engine: str, features: bytes, needed: tuple[int, ...] | None = None, outputs: int = 2) -> Backend:
    return open_backend(engine, features, INPUT_SHAPE, [INPUT_SHAPE] * outputs, needed=needed)


def run(backend: Backend) -> list[np.ndarray]:
    backend.input[...] = np.random.default_rng(4).integers(0, 256, backend.input.shape, np.uint8)
    for output in backend.outputs:
        output.fill(np.nan)
    backend.infer()
    return [output.copy() for output in backend.outputs]


@pytest.mark.parametrize("index", [0, 1])
def test_an_output_alone_has_the_values_it_has_beside_the_others(
    engine: str, index: int, autoencoder: FeatureGraph
) -> None:
    features = composed(autoencoder)
    whole = run(opened(engine, features))
    (alone,) = run(opened(engine, features, (index,)))
    np.testing.assert_allclose(alone, whole[index], rtol=1e-4, atol=1e-5 * np.abs(whole[index]).max())


def test_the_cut_graph_is_the_one_that_never_had_a_backward_pass(autoencoder: FeatureGraph) -> None:
    cut = onnx.load_from_string(onnx_outputs.cut(composed(autoencoder), (0,)))
    alone = onnx.load_from_string(composed(autoencoder, OUTPUTS[:1]))
    onnx.checker.check_model(cut, full_check=True)
    assert list(cut.graph.node) == list(alone.graph.node)
    assert list(cut.graph.initializer) == list(alone.graph.initializer)
    assert list(cut.graph.output) == list(alone.graph.output)


def test_a_saliency_map_needs_no_reconstruction_in_grey_levels(autoencoder: FeatureGraph) -> None:
    whole = onnx.load_from_string(composed(autoencoder))
    cut = onnx.load_from_string(onnx_outputs.cut(composed(autoencoder), (1,)))
    onnx.checker.check_model(cut, full_check=True)
    assert [node.name for node in whole.graph.node if node not in cut.graph.node] == ["reconstruction"]
    assert [value.name for value in cut.graph.output] == ["saliency"]


def test_all_outputs_leave_a_file_that_means_the_same(autoencoder: FeatureGraph) -> None:
    features = composed(autoencoder)
    assert onnx_outputs.outputs_of(features) == 2
    assert onnx.load_from_string(onnx_outputs.cut(features, (0, 1))) == onnx.load_from_string(features)


def test_openvino_compiles_no_backward_pass(autoencoder: FeatureGraph) -> None:
    if "openvino" not in installed():
        pytest.skip("openvino is not installed")

    def operations(backend: Backend) -> int:
        return len(backend._request.get_compiled_model().get_runtime_model().get_ops())

    features = composed(autoencoder)
    few = operations(opened("openvino", features, (0,)))
    assert few == operations(opened("openvino", composed(autoencoder, OUTPUTS[:1]), outputs=1))
    assert few < operations(opened("openvino", features))


def graph(nodes: Sequence[NodeProto], outputs: Sequence[str], **constants: np.ndarray) -> bytes:
    """An ONNX file with `frame` cast to `numbers`, float32, then the nodes."""
    made = helper.make_graph(
        [helper.make_node("Cast", ["frame"], ["numbers"], to=TensorProto.FLOAT), *nodes],
        "two",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, INPUT_SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, INPUT_SHAPE) for name in outputs],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.fixture
def failing() -> bytes:
    """A graph whose second output fails when it is run: it takes row 254 of images with fewer."""
    return graph(
        [
            helper.make_node("Relu", ["numbers"], ["good"]),
            helper.make_node("Cast", ["frame"], ["indices"], to=TensorProto.INT64),
            helper.make_node("Add", ["indices", "far"], ["row"]),
            helper.make_node("GatherElements", ["numbers", "row"], ["bad"], axis=2),
        ],
        ("good", "bad"),
        far=np.array(254),
    )


def test_onnx_runtime_runs_no_node_behind_another_output(failing: bytes) -> None:
    with pytest.raises(FlawlineError, match="ONNX Runtime failed on a frame"):
        run(opened("onnxruntime", failing))
    (good,) = run(opened("onnxruntime", failing, (0,)))
    assert np.isfinite(good).all()


def branching() -> bytes:
    """A graph whose first output is made in branches that read a constant and a tensor around them."""

    def branch(operator: str, name: str) -> onnx.GraphProto:
        inside = helper.make_node(operator, ["doubled", "three"], ["made"])
        return helper.make_graph(
            [inside], name, [], [helper.make_tensor_value_info("made", TensorProto.FLOAT, INPUT_SHAPE)]
        )

    return graph(
        [
            helper.make_node("Mul", ["numbers", "two"], ["doubled"]),
            helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["any"], to=TensorProto.BOOL),
            helper.make_node(
                "If", ["any"], ["first"], then_branch=branch("Add", "yes"), else_branch=branch("Sub", "no")
            ),
            helper.make_node("Mul", ["numbers", "seven"], ["second"]),
        ],
        ("first", "second"),
        two=np.float32(2),
        three=np.float32(3),
        seven=np.float32(7),
    )


def test_what_branches_read_around_them_is_kept(engine: str) -> None:
    backend = opened(engine, branching(), (0,))
    (first,) = run(backend)
    np.testing.assert_array_equal(first, backend.input * np.float32(2) + np.float32(3))
    cut = onnx.load_from_string(onnx_outputs.cut(branching(), (0,)))
    assert [tensor.name for tensor in cut.graph.initializer] == ["two", "three"]


def test_only_buffers_of_outputs_that_are_wanted_are_held(engine: str, failing: bytes) -> None:
    assert [output.shape for output in opened(engine, failing, (0,)).outputs] == [INPUT_SHAPE]


def test_a_graph_with_fewer_outputs_than_the_manifest_says_is_refused(engine: str, autoencoder: FeatureGraph) -> None:
    with pytest.raises(BundleError, match="gives 1 outputs; the manifest says 2"):
        opened(engine, composed(autoencoder, OUTPUTS[:1]), (0,))


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda features: b"no graph at all",
    "half of one": lambda features: features[: len(features) // 2],
    "a byte short": lambda features: features[:-1],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_cut_is_refused_in_a_line(engine: str, name: str, failing: bytes) -> None:
    with pytest.raises(EngineError, match="the feature graph cannot be read") as caught:
        opened(engine, DAMAGED[name](failing), (0,))
    assert "\n" not in str(caught.value)


def test_flipped_bits_are_refused_or_harmless() -> None:
    """Never another error than the one that is told in a line; what an engine runs whole it runs cut, with the same values."""
    features, compared = branching(), 0
    generator = np.random.default_rng(2)
    for position in generator.integers(0, len(features), 300):
        flipped = bytearray(features)
        flipped[position] ^= 1 << int(generator.integers(8))
        try:
            outputs = onnx_outputs.outputs_of(bytes(flipped))
            cut = onnx_outputs.cut(bytes(flipped), (0,))
        except ValueError:
            continue
        assert onnx_outputs.outputs_of(cut) == min(outputs, 1)
        try:
            whole = run(opened("onnxruntime", bytes(flipped)))
        except FlawlineError:
            continue
        (alone,) = run(opened("onnxruntime", bytes(flipped), (0,)))
        np.testing.assert_array_equal(alone, whole[0])
        compared += 1
    assert compared > 30
