"""Graphs that leave height and width open."""

import numpy as np
import onnx
import onnxruntime
import pytest

from flawline.export.features import export_features, open_backbone
from flawline.export.sizes import features_of_any_size, features_of_one_size


@pytest.fixture(params=["nhwc", "nchw"])
def layout(request):
    return request.param


@pytest.fixture
def exported(tiny_network, layout):
    backbone = open_backbone(
        str(tiny_network), layers=("fine", "coarse"), weights=None, image_size=64, mean=None, std=None, seed=0
    )
    return export_features(
        backbone, channels=1, layout=layout, projection="orthogonal", dimension=6, map_stride=4, seed=0, crop=8
    )


def shapes(features):
    graph = onnx.load_from_string(features).graph
    return {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def run(features, frame):
    return onnxruntime.InferenceSession(features, providers=["CPUExecutionProvider"]).run(None, {"frame": frame})


def test_only_what_is_declared_differs(exported, layout):
    opened = features_of_any_size(exported.features, layout)
    onnx.checker.check_model(onnx.load_from_string(opened), full_check=True)
    assert shapes(opened) == {
        "frame": ["N", "frame_h", "frame_w", 1] if layout == "nhwc" else ["N", 1, "frame_h", "frame_w"],
        "features_0": ["N", 6, "features_0_h", "features_0_w"],
        "features_1": ["N", 6, "features_1_h", "features_1_w"],
    }
    before, after = (onnx.load_from_string(features).graph for features in (exported.features, opened))
    assert list(before.node) == list(after.node)
    assert list(before.initializer) == list(after.initializer)


def test_an_open_graph_closed_again_is_the_one_it_was(exported, layout):
    opened = features_of_any_size(exported.features, layout)
    sizes = {"frame": (64, 64)} | {output.name: (output.height, output.width) for output in exported.network.outputs}
    closed = features_of_one_size(opened, sizes, layout)
    assert shapes(closed) == shapes(exported.features)
    assert features_of_any_size(closed, layout) == opened


def test_an_open_graph_gives_the_same_features_and_takes_other_sizes(exported, layout):
    generator = np.random.default_rng(0)
    opened = features_of_any_size(exported.features, layout)
    frame = generator.integers(0, 256, (2, 64, 64, 1), np.uint8)
    larger = np.pad(frame, ((0, 0), (0, 32), (16, 48), (0, 0)), mode="edge")
    if layout == "nchw":
        frame, larger = (pixels.transpose(0, 3, 1, 2) for pixels in (frame, larger))
    for got, want in zip(run(opened, frame), run(exported.features, frame), strict=True):
        np.testing.assert_array_equal(got, want)
    assert [features.shape[2:] for features in run(opened, larger)] == [(20, 28), (10, 14)]


def test_a_crop_leaves_out_that_much_on_every_side(exported, layout, tiny_network):
    backbone = open_backbone(
        str(tiny_network), layers=("fine", "coarse"), weights=None, image_size=64, mean=None, std=None, seed=0
    )
    whole = export_features(
        backbone, channels=1, layout=layout, projection="orthogonal", dimension=6, map_stride=4, seed=0
    )
    assert (whole.map_size, exported.map_size) == ((16, 16), (12, 12))
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 1), np.uint8)
    frame = frame if layout == "nhwc" else frame.transpose(0, 3, 1, 2)
    for got, want, edge in zip(run(exported.features, frame), run(whole.features, frame), (2, 1), strict=True):
        np.testing.assert_allclose(got, want[:, :, edge:-edge, edge:-edge], rtol=1e-5, atol=1e-5)
