"""A small network, good web, and a detector fitted on it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.export.web.fits import fit, pieces_of_web


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    return pieces_of_web(tmp_path_factory.mktemp("web") / "good")


@pytest.fixture(scope="session")
def fitted(network, good, tmp_path_factory):
    return fit(network, good, tmp_path_factory.mktemp("bundle") / "web.flaw")
