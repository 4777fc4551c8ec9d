"""Graphs that are damaged, lie or reach out: every engine refuses them in one line."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from flawline.runtime.backends import Backend, onnx_file, open_backend
from flawline.runtime.errors import BundleError, EngineError, FlawlineError

SHAPE = ("N", 4, 4, 1)


@pytest.fixture
def opened(engine: str) -> Callable[..., Backend]:
    """Opens a graph in each engine as one whose output has the shape of its input."""

    def opened(features: bytes, batch: int = 1) -> Backend:
        return open_backend(engine, features, (batch, 4, 4, 1), [(batch, 4, 4, 1)])

    return opened


def model(
    *nodes: NodeProto,
    frame: Sequence[int | str] = SHAPE,
    features: Sequence[int | str] = SHAPE,
    dtype: int = TensorProto.UINT8,
    constants: Sequence[TensorProto] = (),
) -> bytes:
    """An ONNX file: `frame` cast to `numbers`, float32, then the nodes, to `features`."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["frame"], ["numbers"], to=TensorProto.FLOAT), *nodes],
        "few",
        [helper.make_tensor_value_info("frame", dtype, frame)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, features)],
        initializer=[numpy_helper.from_array(np.float32(2), "two"), *constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def node(operator: str, *inputs: str, **attributes: object) -> NodeProto:
    return helper.make_node(operator, inputs or ["numbers"], ["features"], **attributes)


def outside(location: str) -> bytes:
    """A graph with a tensor that is kept in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model(node("Add", "numbers", "outside"), constants=[tensor])


def of_version(version: int) -> bytes:
    """The good graph, with operators of a version."""
    made = ModelProto.FromString(GOOD)
    made.opset_import[0].version = version
    return made.SerializeToString()


def recursive() -> bytes:
    """A graph with an operator that is defined by itself."""
    made = ModelProto.FromString(model(node("Endless", domain="own")))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    again = helper.make_node("Endless", ["x"], ["y"], domain="own")
    made.functions.append(helper.make_function("own", "Endless", ["x"], ["y"], [again], opsets))
    made.opset_import.append(opsets[1])
    return made.SerializeToString()


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer, of less than 16 KiB."""
    return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


def renamed(first: str, last: str) -> bytes:
    """A constant of a graph that is given two names, of which the last counts."""
    return field(5, field(8, first.encode()) + numpy_helper.from_array(np.float32(1), last).SerializeToString())


def circle_of_two_halves() -> bytes:
    """A graph in two parts that readers put together: in each, a constant that loses its name hides what the other makes."""
    whole = ModelProto.FromString(CIRCLE)
    back, last = whole.graph.node[2:]
    del whole.graph.node[2:]
    halves = (
        whole.graph.SerializeToString() + renamed("second", "one"),
        GraphProto(node=[back, last]).SerializeToString() + renamed("first", "another"),
    )
    whole.ClearField("graph")
    return whole.SerializeToString() + b"".join(field(7, half) for half in halves)


def circle_beyond_32_bits() -> bytes:
    """A graph in a field whose number, read as 32 bits, is that of the graph."""
    whole = ModelProto.FromString(CIRCLE)
    hidden = field(7, whole.graph.SerializeToString())
    whole.ClearField("graph")
    return whole.SerializeToString() + b"\xba\x80\x80\x80\x10" + hidden[1:]


GOOD = model(node("Add", "numbers", "two"))
CIRCLE = model(
    helper.make_node("Add", ["numbers", "second"], ["first"]),
    helper.make_node("Relu", ["first"], ["second"]),
    node("Relu", "second"),
)
REFUSED = {
    "garbage": b"no graph at all",
    "half of one": GOOD[: len(GOOD) // 2],
    "a byte short": GOOD[:-1],
    "an operator that nobody knows": model(node("Abracadabra")),
    "a tensor that nobody makes": model(node("Add", "numbers", "nothing")),
    "shapes that do not go together": model(
        node("Add", "numbers", "seven"), constants=[numpy_helper.from_array(np.zeros((7, 1), np.float32), "seven")]
    ),
    "operators of a version far ahead": of_version(1 << 31),
    "operators of a negative version": of_version(-1),
    "nodes in a circle": CIRCLE,
    "a circle of two halves": circle_of_two_halves(),
    "a circle in a field beyond 32 bits": circle_beyond_32_bits(),
    "a tensor that is made twice": model(
        helper.make_node("Relu", ["numbers"], ["other"]),
        helper.make_node("Relu", ["other"], ["numbers"]),
        node("Relu", "numbers"),
    ),
    "a tensor that a node makes twice": model(
        helper.make_node("Split", ["numbers"], ["half", "half"], axis=1), node("Concat", "half", "half", axis=1)
    ),
    "a constant that a node makes": model(helper.make_node("Relu", ["numbers"], ["two"]), node("Relu", "two")),
    "an operator defined by itself": recursive(),
    "a network of another library": b'<?xml version="1.0"?><net name="few" version="11"><layers/><edges/></net>',
}
MISFITS = {
    "another height": model(node("Add", "numbers", "two"), frame=("N", 8, 4, 1), features=("N", 8, 4, 1)),
    "an open height": model(node("Add", "numbers", "two"), frame=("N", "H", 4, 1), features=("N", "H", 4, 1)),
    "a batch of its own": model(node("Add", "numbers", "two"), frame=(7, 4, 4, 1), features=(7, 4, 4, 1)),
    "numbers for a frame": model(node("Add", "numbers", "two"), dtype=TensorProto.FLOAT),
    "fewer axes": model(node("ReduceMax", axes=[3], keepdims=0), features=("N", 4, 4)),
    "a map of another size": model(node("ReduceMax", axes=[1]), features=("N", 1, 4, 1)),
    "a length that depends on the pixels": model(node("Compress", "numbers", "flags"), features=("K",)).replace(
        b"flags", b"frame"
    ),
}


def test_the_good_graph_runs(opened):
    backend = opened(GOOD, batch=2)
    backend.input[...] = 5
    backend.infer()
    np.testing.assert_array_equal(backend.outputs[0], np.full((2, 4, 4, 1), 7, np.float32))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_graph_is_refused_in_a_line(opened, name):
    with pytest.raises(EngineError, match=r"refuses the feature graph: .{12,}") as caught:
        opened(REFUSED[name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MISFITS)
def test_a_graph_of_another_form_is_refused(opened, name):
    with pytest.raises(BundleError) as caught:
        opened(MISFITS[name])
    assert "\n" not in str(caught.value)


def test_the_message_says_what_was_received_and_what_was_expected(opened):
    with pytest.raises(BundleError) as caught:
        opened(MISFITS["another height"])
    assert str(caught.value) == (
        "the feature graph takes and gives uint8 (?, 8, 4, 1) -> float32 (?, 8, 4, 1); "
        "the manifest says uint8 (1, 4, 4, 1) -> float32 (1, 4, 4, 1)"
    )


def test_no_bytes_are_no_graph(opened):
    with pytest.raises(BundleError):
        opened(b"")


def test_an_output_that_does_not_follow_the_batch_is_never_taken_for_one(opened):
    with pytest.raises(FlawlineError) as caught:
        opened(model(node("ReduceMax", axes=[0])), batch=3).infer()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_tensor_in_another_file_is_never_read(opened, tmp_path, monkeypatch, absolute):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.full(4, 42, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError):
        opened(outside(str(secret) if absolute else secret.name))


# Protocol buffers read 88 00 as they read 08; in C++, also 8a 80 80 80 10 as 0a, of which they take 32 bits.
@pytest.mark.parametrize("written", [b"\n\x88\x00", b"\x8a\x80\x80\x80\x10\x08"])
def test_the_key_of_another_file_may_be_written_at_length(opened, tmp_path, monkeypatch, written):
    (tmp_path / "secret.bin").write_bytes(np.full(4, 42, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    # The name is shorter by what the key is longer, so that the lengths around stay true.
    longer = "secret.bin" + "?" * (len(written) - 2)
    hidden = (
        outside(longer)
        .replace(b"\n\x08location", written + b"location")
        .replace(bytes([len(longer)]) + longer.encode(), b"\x0asecret.bin")
    )
    # Protocol buffers in Python take no number beyond 32 bits.
    readable = ModelProto.FromString(hidden.replace(b"\x80\x10\x08location", b"\x80\x00\x08location"))
    (entry,) = readable.graph.initializer[1].external_data
    assert (entry.key, entry.value) == ("location", "secret.bin")
    with pytest.raises(EngineError):
        opened(hidden)


def test_a_tensor_may_have_any_name(opened):
    backend = opened(
        model(node("Add", "numbers", "location/of"), constants=[numpy_helper.from_array(np.float32(1), "location/of")])
    )
    backend.infer()
    assert backend.outputs[0].max() == 1


def branching(*nodes: NodeProto) -> bytes:
    """A graph that is `numbers` plus two if the sum of the pixels is not zero, else what the nodes make of `numbers`."""
    added = helper.make_node("Add", ["numbers", "two"], ["made"])
    branches = {
        name: helper.make_graph(
            list(inside), name, [], [helper.make_tensor_value_info("made", TensorProto.FLOAT, None)]
        )
        for name, inside in (("then_branch", [added]), ("else_branch", nodes))
    }
    return model(
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["any"], to=TensorProto.BOOL),
        node("If", "any", **branches),
    )


def test_a_branch_may_read_what_was_made_before_it():
    onnx_file.check(branching(helper.make_node("Relu", ["numbers"], ["made"])))


def test_a_circle_in_a_branch_is_refused(opened):
    circle = [helper.make_node("Relu", ["other"], ["made"]), helper.make_node("Relu", ["made"], ["other"])]
    with pytest.raises(EngineError, match="refuses the feature graph"):
        opened(branching(*circle))


@pytest.mark.parametrize("operator", ["Sqrt", "Log"])
def test_not_a_number_is_handed_on_and_not_hidden(opened, operator):
    """The score is refused if it is not finite; an engine that turned NaN into a number would hide that."""
    backend = opened(model(helper.make_node("Sub", ["numbers", "two"], ["less"]), node(operator, "less")))
    backend.infer()
    assert np.isnan(backend.outputs[0]).all()
