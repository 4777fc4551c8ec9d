"""How far a feature sees: what the graph says, against what changing pixels does."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from flawline.export.features import open_backbone
from flawline.export.receptive_field import Field, receptive_fields
from flawline.runtime.errors import InputError


def fields_of(nodes: list[onnx.NodeProto], layers: list[str], **constants: np.ndarray) -> list[Field]:
    return receptive_fields(model(nodes, layers, **constants), "image", layers)


def model(
    nodes: list[onnx.NodeProto], layers: list[str], channels: int = 1, **constants: np.ndarray
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, "h", "w"])],
        [onnx.ValueInfoProto(name=name) for name in layers],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def conv(image: str, output: str, kernel: int, step: int = 1, pads: tuple[int, ...] = (), dilation: int = 1):
    pads = pads or (dilation * (kernel // 2),) * 4
    return helper.make_node(
        "Conv",
        [image, f"w{kernel}"],
        [output],
        kernel_shape=[kernel] * 2,
        strides=[step] * 2,
        pads=pads,
        dilations=[dilation] * 2,
    )


W1, W3, W7 = (np.ones((1, 1, size, size), np.float32) for size in (1, 3, 7))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([conv("image", "out", 1)], Field(1, 0, 0)),
        ([conv("image", "out", 3)], Field(1, -1, 1)),
        ([conv("image", "out", 3, dilation=2)], Field(1, -2, 2)),
        ([conv("image", "out", 7, step=2)], Field(2, -3, 3)),
        # Padding at the end alone, as TensorFlow pads for a step of two.
        ([conv("image", "out", 3, step=2, pads=(0, 0, 1, 1))], Field(2, 0, 2)),
        ([conv("image", "x", 7, step=2), conv("x", "out", 3, step=2)], Field(4, -5, 5)),
        (
            [
                helper.make_node("MaxPool", ["image"], ["x"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
                helper.make_node("AveragePool", ["x"], ["out"], kernel_shape=[2, 2], strides=[2, 2]),
            ],
            Field(4, -1, 3),
        ),
        (
            [conv("image", "x", 3), conv("x", "y", 7), helper.make_node("Add", ["x", "y"], ["out"])],
            Field(1, -4, 4),
        ),
        (
            [
                conv("image", "x", 3, step=2, pads=(0, 0, 1, 1)),
                conv("image", "y", 7, step=2),
                helper.make_node("Concat", ["x", "y"], ["z"], axis=1),
                helper.make_node("Clip", ["z"], ["out"]),
            ],
            Field(2, -3, 3),
        ),
    ],
)
def test_fields_are_those_that_a_person_counts(nodes: list[onnx.NodeProto], expected: Field) -> None:
    assert fields_of(nodes, ["out"], w1=W1, w3=W3, w7=W7) == [expected]


def test_a_pad_moves_the_field_and_a_layer_in_the_middle_has_its_own() -> None:
    nodes = [
        helper.make_node("Pad", ["image", "pads"], ["padded"]),
        conv("padded", "x", 3, step=2, pads=(0, 0, 0, 0)),
        helper.make_node("Relu", ["x"], ["y"]),
        conv("y", "z", 3),
    ]
    pads = np.array([0, 0, 2, 1, 0, 0, 1, 2])
    assert fields_of(nodes, ["y", "z"], w3=W3, pads=pads) == [Field(2, -2, 0), Field(2, -4, 2)]


def test_the_axis_on_which_the_network_sees_further_counts() -> None:
    nodes = [helper.make_node("Conv", ["image", "w"], ["out"], pads=[0, 4, 0, 4])]
    assert fields_of(nodes, ["out"], w=np.ones((1, 1, 1, 9), np.float32)) == [Field(1, -4, 4)]
    nodes = [helper.make_node("Conv", ["image", "w"], ["out"], pads=[4, 0, 4, 0])]
    assert fields_of(nodes, ["out"], w=np.ones((1, 1, 9, 1), np.float32)) == [Field(1, -4, 4)]


@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [((1, 7), (2, 1), (0, 3, 0, 3)), ((7, 1), (1, 2), (3, 0, 3, 0)), ((1, 7), (4, 2), (0, 3, 0, 3))],
)
def test_strides_that_differ_along_the_axes_are_refused(kernel, strides, pads) -> None:
    node = helper.make_node("Conv", ["image", "w"], ["out"], strides=strides, pads=pads)
    message = f"layer out has a stride of {strides[0]} lines and {strides[1]} px; a web needs .* the same stride"
    with pytest.raises(InputError, match=message):
        fields_of([node], ["out"], w=np.ones((1, 1, *kernel), np.float32))


def test_strides_that_differ_on_the_way_and_are_equal_again_are_taken() -> None:
    nodes = [
        helper.make_node("Conv", ["image", "wide"], ["x"], strides=[2, 1], pads=[0, 3, 0, 3]),
        helper.make_node("Conv", ["x", "high"], ["out"], strides=[1, 2], pads=[1, 0, 1, 0]),
    ]
    constants = {"wide": np.ones((1, 1, 1, 7), np.float32), "high": np.ones((1, 1, 3, 1), np.float32)}
    # 2 lines and 3 px beyond the cell of 2 x 2 along the axes; the wider counts.
    assert fields_of(nodes, ["out"], **constants) == [Field(2, -3, 3)]


@pytest.mark.parametrize(
    ("field", "radius"), [(Field(1, 0, 0), 0), (Field(1, -1, 1), 1), (Field(2, 0, 2), 1), (Field(4, -5, 5), 5)]
)
def test_the_radius_is_what_is_seen_beyond_the_cell(field: Field, radius: int) -> None:
    assert field.radius == radius


@pytest.mark.parametrize(
    ("nodes", "name"),
    [
        ([helper.make_node("GlobalAveragePool", ["image"], ["out"], name="squeeze")], "GlobalAveragePool squeeze"),
        ([helper.make_node("ReduceMean", ["image"], ["out"], axes=[2, 3])], "ReduceMean out"),
        ([helper.make_node("Resize", ["image", "", "scales"], ["out"], name="up")], "Resize up"),
        ([helper.make_node("Flatten", ["image"], ["x"]), helper.make_node("Gemm", ["x", "w1"], ["out"])], "Flatten x"),
        ([helper.make_node("Concat", ["image", "image"], ["out"], axis=2)], "Concat out"),
        ([helper.make_node("Concat", ["image", "image"], ["out"], axis=-1)], "Concat out"),
        ([helper.make_node("InstanceNormalization", ["image", "w1", "w1"], ["out"])], "InstanceNormalization out"),
        ([helper.make_node("Softmax", ["image"], ["out"], axis=3)], "Softmax out"),
        ([helper.make_node("Transpose", ["image"], ["out"], perm=[0, 1, 3, 2])], "Transpose out"),
        ([helper.make_node("Shape", ["image"], ["out"])], "Shape out"),
    ],
)
def test_what_is_not_local_is_refused_by_name(nodes: list[onnx.NodeProto], name: str) -> None:
    with pytest.raises(InputError, match=f"not fully convolutional: {name} looks beyond"):
        fields_of(nodes, ["out"], w1=W1, scales=np.ones(4, np.float32))


def test_padding_by_the_size_of_the_input_is_refused() -> None:
    node = helper.make_node("Conv", ["image", "w3"], ["out"], auto_pad="SAME_UPPER", strides=[2, 2])
    with pytest.raises(InputError, match=r"Conv out pads by the size of its input \(SAME_UPPER\)"):
        fields_of([node], ["out"], w3=W3)


def test_what_is_added_to_every_position_is_not_seen() -> None:
    """Weights and constants are no part of the image."""
    nodes = [helper.make_node("Mul", ["w1", "image"], ["x"]), helper.make_node("Add", ["x", "w1"], ["out"])]
    assert fields_of(nodes, ["out"], w1=W1) == [Field(1, 0, 0)]


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet-lite0"])
def test_pixels_at_the_radius_change_a_feature_and_pixels_beyond_do_not(backbone: str) -> None:
    size = 384
    opened = open_backbone(backbone, layers=None, weights="random", image_size=size, mean=None, std=None, seed=0)
    graph = opened.graph
    found = receptive_fields(graph.model, graph.input, graph.layers)
    assert [field.stride for field in found] == list(graph.strides)
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    image = random.normal(0, 1, (1, graph.image_channels, size, size)).astype(np.float32)
    before = session.run(None, {graph.input: image})
    for layer, field in enumerate(found):
        middle = size // 2 // field.stride
        first, last = middle * field.stride + field.first, middle * field.stride + field.last
        for axis in (2, 3):
            for pixels, is_seen in (
                (slice(first, first + 1), True),
                (slice(last, last + 1), True),
                (slice(0, first), False),
                (slice(last + 1, size), False),
            ):
                changed = image.copy()
                # Strong enough not to drown in the rounding of what is summed.
                changed[(slice(None),) * axis + (pixels,)] += random.normal(0, 1e4, 1).astype(np.float32)
                after = session.run(None, {graph.input: changed})[layer]
                rows = [slice(None), slice(None), middle, middle]
                differs = np.any(after[tuple(rows)] != before[layer][tuple(rows)])
                assert differs == is_seen, (graph.layers[layer], axis, pixels)
