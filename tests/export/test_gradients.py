"""The gradient of every operator that has one, alone and in a chain, against autograd."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from flawline.export.gradients import RULES
from flawline.export.nodes import Nodes
from flawline.export.saliency import propagate_back
from flawline.runtime.errors import InputError

Array = npt.NDArray[Any]
Step = tuple[str, dict[str, Any], Sequence[Array]]

RANDOM = np.random.default_rng(0)
IMAGE = (4, 9, 11)


def normal(*shape: int) -> npt.NDArray[np.float32]:
    return RANDOM.normal(0, 0.5, shape).astype(np.float32)


def padded(x: Tensor, pads: Sequence[int]) -> Tensor:
    half = len(pads) // 2
    return functional.pad(x, [p for axis in reversed(range(half)) for p in (pads[axis], pads[axis + half])])


def conv(x: Tensor, w: Tensor, *bias: Tensor, pads: Sequence[int] = (0, 0, 0, 0), **attributes: Any) -> Tensor:
    names = {"strides": "stride", "dilations": "dilation", "group": "groups"}
    return functional.conv2d(padded(x, pads), w, *bias, **{names[key]: value for key, value in attributes.items()})


def conv_transpose(
    x: Tensor,
    w: Tensor,
    *bias: Tensor,
    pads: Sequence[int] = (0, 0, 0, 0),
    output_padding: Sequence[int] = (0, 0),
    **attributes: Any,
) -> Tensor:
    names = {"strides": "stride", "dilations": "dilation", "group": "groups"}
    options = {names[key]: value for key, value in attributes.items()}
    whole = functional.conv_transpose2d(x, w, *bias, output_padding=output_padding, **options)
    return whole[:, :, pads[0] : whole.shape[2] - pads[2], pads[1] : whole.shape[3] - pads[3]]


def gemm(x: Tensor, w: Tensor, *bias: Tensor, alpha: float = 1, beta: float = 1, transB: int = 0) -> Tensor:
    product = alpha * (x @ (w.T if transB else w))
    return product + beta * bias[0] if bias else product


def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float = 1e-5) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


TORCH: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Flatten": lambda x: x.flatten(1),
    "Gemm": gemm,
    "Identity": lambda x: x,
    "LeakyRelu": lambda x, alpha=0.01: functional.leaky_relu(x, alpha),
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Relu": functional.relu,
    "Reshape": lambda x, shape: x.reshape(shape.tolist()),
    "Sigmoid": torch.sigmoid,
    "Squeeze": lambda x, axes: x.squeeze(int(axes[0])),
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Transpose": lambda x, perm: x.permute(perm),
    "Unsqueeze": lambda x, axes: x.unsqueeze(int(axes[0])),
}

X = np.array(0)
"""Stands for what the step before gave, where it is no step's first input."""

VARIANCE = np.abs(normal(4)) + 0.1
STEPS: list[Step] = [
    ("Add", {}, [normal(1, 4, 1, 1)]),
    ("Add", {}, [X]),
    ("BatchNormalization", {"epsilon": 1e-3}, [normal(4), normal(4), normal(4), VARIANCE]),
    ("Conv", {}, [normal(6, 4, 3, 3), normal(6)]),
    ("Conv", {"pads": [1, 1, 1, 1]}, [normal(4, 4, 3, 3)]),
    ("Conv", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [normal(5, 4, 3, 3)]),
    ("Conv", {"strides": [2, 3], "pads": [0, 2, 1, 0]}, [normal(5, 4, 2, 5)]),
    ("Conv", {"strides": [3, 2]}, [normal(5, 4, 1, 1)]),
    ("Conv", {"strides": [4, 4]}, [normal(5, 4, 1, 2)]),
    ("Conv", {"dilations": [2, 3], "pads": [1, 1, 1, 1]}, [normal(5, 4, 3, 2)]),
    ("Conv", {"group": 2, "strides": [2, 1]}, [normal(6, 2, 3, 3)]),
    ("Conv", {"group": 4, "pads": [1, 1, 1, 1]}, [normal(4, 1, 3, 3)]),
    ("ConvTranspose", {}, [normal(4, 3, 3, 3), normal(3)]),
    ("ConvTranspose", {"strides": [2, 2], "pads": [2, 2, 2, 2], "output_padding": [1, 1]}, [normal(4, 4, 5, 5)]),
    ("ConvTranspose", {"strides": [2, 2], "output_padding": [1, 1]}, [normal(4, 3, 1, 1)]),
    ("ConvTranspose", {"strides": [3, 2], "pads": [1, 0, 0, 1]}, [normal(4, 3, 4, 3)]),
    ("ConvTranspose", {"group": 2, "dilations": [2, 1]}, [normal(4, 3, 2, 2)]),
    ("Flatten", {}, []),
    ("Identity", {}, []),
    ("LeakyRelu", {}, []),
    ("LeakyRelu", {"alpha": 0.25}, []),
    ("MatMul", {}, [normal(11, 7)]),
    ("MatMul", {}, [normal(11, 11)]),
    ("Mul", {}, [normal(4, 1, 11)]),
    ("Mul", {}, [X]),
    ("Relu", {}, []),
    ("Reshape", {}, [np.array([-1, 9, 44])]),
    ("Sigmoid", {}, []),
    ("Sub", {}, [normal(4, 9, 11)]),
    ("Tanh", {}, []),
    ("Transpose", {"perm": [0, 3, 1, 2]}, []),
    ("Unsqueeze", {}, [np.array([2])]),
]

PIXELS = int(np.prod(IMAGE))
CHAINS: dict[str, list[Step]] = {
    "Gemm": [("Flatten", {}, []), ("Gemm", {"alpha": 0.5, "beta": 2.0}, [normal(PIXELS, 6), normal(6)])],
    "Gemm transposed": [("Flatten", {}, []), ("Gemm", {"transB": 1}, [normal(6, PIXELS)])],
    "Squeeze": [("Unsqueeze", {}, [np.array([2])]), ("Tanh", {}, []), ("Squeeze", {}, [np.array([2])])],
    "every operator": [
        ("Conv", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [normal(8, 4, 3, 3), normal(8)]),
        ("BatchNormalization", {}, [normal(8), normal(8), normal(8), np.abs(normal(8)) + 0.1]),
        ("LeakyRelu", {"alpha": 0.1}, []),
        ("Conv", {"pads": [1, 1, 1, 1]}, [normal(8, 8, 3, 3)]),
        ("Add", {}, [X]),
        ("Relu", {}, []),
        ("Transpose", {"perm": [0, 2, 3, 1]}, []),
        ("MatMul", {}, [normal(8, 8)]),
        ("Transpose", {"perm": [0, 3, 1, 2]}, []),
        ("Mul", {}, [X]),
        ("Sub", {}, [normal(8, 1, 1)]),
        ("Flatten", {}, []),
        ("Gemm", {"transB": 1}, [normal(16, 240) / 50, normal(16)]),
        ("Tanh", {}, []),
        ("Gemm", {"transB": 1}, [normal(16, 16) / 4, normal(16)]),
        ("Unsqueeze", {}, [np.array([1])]),
        ("Identity", {}, []),
        ("Squeeze", {}, [np.array([1])]),
        ("Reshape", {}, [np.array([-1, 4, 2, 2])]),
        ("ConvTranspose", {"strides": [2, 2], "pads": [2, 2, 2, 2], "output_padding": [1, 1]}, [normal(4, 4, 5, 5)]),
        ("Sigmoid", {}, []),
    ],
}
CASES = {
    f"{operator} {attributes or ''}".strip() + f" {i}": [step]
    for i, step in enumerate(STEPS)
    for operator, attributes, _ in [step]
}
CASES |= CHAINS


def forward(steps: Sequence[Step], opset: int = 18) -> onnx.ModelProto:
    """The steps in a chain, from `image` to `output`."""
    nodes, constants, x = [], [], "image"
    for i, (operator, attributes, arrays) in enumerate(steps):
        names = []
        for j, array in enumerate(arrays):
            names.append(x if array is X else f"constant_{i}_{j}")
            if array is not X:
                constants.append(numpy_helper.from_array(array, names[-1]))
        output = "output" if i == len(steps) - 1 else f"tensor_{i}"
        nodes.append(helper.make_node(operator, [x, *names], [output], **attributes))
        x = output
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *IMAGE])
    graph = helper.make_graph(nodes, "forward", [image], [onnx.ValueInfoProto(name="output")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def with_backward(model: onnx.ModelProto) -> onnx.ModelProto:
    """Both passes: `image` and `seed` in, `gradient` out."""
    nodes = Nodes()
    gradient = propagate_back(model, "image", "output", "seed", nodes)
    nodes.add("Identity", [gradient], "gradient")
    both = onnx.ModelProto()
    both.CopyFrom(model)
    both.graph.node.extend(nodes.nodes)
    both.graph.initializer.extend(nodes.constants)
    seed = onnx.ValueInfoProto()
    seed.CopyFrom(model.graph.output[0])
    seed.name = "seed"
    both.graph.input.append(seed)
    del both.graph.output[:]
    both.graph.output.append(helper.make_tensor_value_info("gradient", TensorProto.FLOAT, ["N", *IMAGE]))
    onnx.checker.check_model(both, full_check=True)
    return both


def by_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    return np.asarray(onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0])


def by_openvino(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return np.asarray(core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)(feeds)[0])


ENGINES = pytest.mark.parametrize("engine", [by_onnxruntime, by_openvino])


def test_every_rule_has_a_case() -> None:
    assert {operator for steps in CASES.values() for operator, _, _ in steps} == set(RULES) == set(TORCH)
    assert {operator for operator, _, _ in CHAINS["every operator"]} == set(RULES)


@ENGINES
@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
def test_gradient_is_that_of_autograd(
    steps: Sequence[Step], engine: Callable[[onnx.ModelProto, dict[str, Array]], Array]
) -> None:
    image = torch.from_numpy(normal(3, *IMAGE) * 2).requires_grad_()
    x: Tensor = image
    for operator, attributes, arrays in steps:
        x = TORCH[operator](x, *(x if array is X else torch.from_numpy(array) for array in arrays), **attributes)
    seed = torch.from_numpy(normal(*x.shape))
    x.backward(seed)
    assert image.grad is not None
    expected = image.grad.numpy()
    received = engine(with_backward(forward(steps)), {"image": image.detach().numpy(), "seed": seed.numpy()})
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def model_of(nodes: Sequence[onnx.NodeProto], constants: dict[str, Array] | None = None) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *IMAGE])
    arrays = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "forward", [image], [onnx.ValueInfoProto(name="output")], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def node(operator: str, inputs: Sequence[str], output: str = "output", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


KERNEL = {"w": normal(4, 4, 3, 3)}
REFUSED = {
    "operator without a rule": (
        [node("MaxPool", ["image"], kernel_shape=[2, 2])],
        {},
        r"node output \(MaxPool\) is of an operator without a gradient here: its network has no saliency graph",
    ),
    "padding by a rule": (
        [node("Conv", ["image", "w"], auto_pad="SAME_UPPER")],
        KERNEL,
        r"node output \(Conv\) pads by the rule SAME_UPPER",
    ),
    "weights that are computed": (
        [node("Abs", ["w"], "weights"), node("Conv", ["image", "weights"])],
        KERNEL,
        r"node output \(Conv\) has weights that are computed",
    ),
    "output of a given shape": (
        [node("ConvTranspose", ["image", "w"], strides=[2, 2], output_shape=[20, 23])],
        KERNEL,
        r"node output \(ConvTranspose\) is padded to an output that its windows do not reach",
    ),
    "product of two tensors of the image": (
        [node("Transpose", ["image"], "turned", perm=[0, 1, 3, 2]), node("MatMul", ["image", "turned"])],
        {},
        r"node output \(MatMul\) is no product with a matrix",
    ),
    "broadcast of a tensor of the image": (
        [node("Conv", ["image", "w"], "one", strides=[9, 11]), node("Add", ["one", "image"])],
        {"w": normal(4, 4, 9, 11)},
        r"node output \(Add\) depends on the image by its input one, for which there is no gradient",
    ),
    "images of a batch mixed": (
        [node("Transpose", ["image"], "turned", perm=[1, 0, 2, 3]), node("Reshape", ["turned", "shape"])],
        {"shape": np.array([4, -1])},
        r"node output \(Reshape\) mixes the images of a batch",
    ),
    "no way from the image": (
        [node("Shape", ["image"], "shape"), node("ConstantOfShape", ["shape"])],
        {},
        "the reconstruction does not depend on the image",
    ),
}


@pytest.mark.parametrize(("nodes", "constants", "message"), REFUSED.values(), ids=REFUSED)
def test_network_without_a_gradient_is_refused_by_its_node(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        propagate_back(model_of(nodes, constants), "image", "output", "seed", Nodes())
