"""The composed graph, run by ONNX Runtime, against the same mathematics in float64 torch."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch.nn import functional

from flawline.detectors import NETWORKS, build
from flawline.detectors.folded import FeatureNetwork
from flawline.export.backbone import export_backbone
from flawline.export.graph import FeatureGraph, compose
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

onnxruntime = LazyModule("onnxruntime", "pip install onnxruntime")
SIZE = 64
DIMENSION = 20


@pytest.fixture(scope="module")
def lite0() -> FeatureNetwork:
    return build("efficientnet-lite0")[0]


@pytest.fixture(scope="module")
def resnet(shared_data: Path) -> FeatureNetwork:
    return build("resnet18", next((shared_data / "resnet18").glob("*.npz")))[0]


@pytest.fixture(scope="module")
def lite0_graph(lite0: FeatureNetwork) -> FeatureGraph:
    return export_backbone(lite0, SIZE, SIZE)


def frames(channels: int, count: int = 2) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, SIZE, SIZE, channels), dtype=np.uint8)


def gaussian_projection(depth: int) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(3).standard_normal((DIMENSION, depth)) / np.sqrt(DIMENSION)).astype(np.float32)


def run(model: bytes, batch: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"frame": batch}))


def summed(maps: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
    """The embeddings that the outputs stand for: every map upsampled to the first and added."""
    size = maps[0].shape[2:]
    tensors = [torch.from_numpy(item).double() for item in maps]
    return sum(functional.interpolate(item, size, mode="bilinear", align_corners=False) for item in tensors).numpy()


def reference(
    network: FeatureNetwork, batch: npt.NDArray[np.uint8], projection: npt.NDArray[np.float32] | None, stride: int
) -> npt.NDArray[np.float64]:
    """Torch in float64, literally: normalise, network, pool or upsample to the map, concatenate, project."""
    description = NETWORKS[network.title]
    image = torch.from_numpy(batch).double().permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in (description.mean, description.std))
    size = SIZE // stride
    double = build(network.title, "random", layers=network.layers)[0].double()
    double.load_state_dict(network.state_dict())
    maps = []
    for features in double((image - mean) / std):
        if features.shape[2] > size:
            maps.append(functional.avg_pool2d(features, features.shape[2] // size))
        else:
            maps.append(functional.interpolate(features, (size, size), mode="bilinear", align_corners=False))
    stacked = torch.cat(maps, 1)
    return (
        stacked if projection is None else torch.einsum("dc,bchw->bdhw", torch.from_numpy(projection).double(), stacked)
    ).numpy()


def assert_close(received: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> None:
    assert received.shape == expected.shape
    assert np.abs(received - expected).max() <= 1e-4 * np.abs(expected).max()


def composed(
    network: FeatureNetwork,
    graph: FeatureGraph,
    stride: int,
    projection: npt.NDArray[np.float32] | None,
    channels: int = 3,
) -> tuple[bytes, list[tuple[str, int, int]]]:
    description = NETWORKS[network.title]
    return compose(
        graph,
        height=SIZE,
        width=SIZE,
        channels=channels,
        mean=description.mean,
        std=description.std,
        projection=projection,
        map_stride=stride,
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("projected", [True, False])
def test_graph_equals_float64_torch(
    lite0: FeatureNetwork, lite0_graph: FeatureGraph, stride: int, channels: int, projected: bool
) -> None:
    projection = gaussian_projection(lite0_graph.depth) if projected else None
    model, outputs = composed(lite0, lite0_graph, stride, projection, channels)
    batch = frames(channels)
    maps = run(model, batch)
    assert [(name, *item.shape[2:]) for (name, _, _), item in zip(outputs, maps, strict=True)] == outputs
    assert_close(summed(maps), reference(lite0, batch, projection, stride))


@pytest.mark.shared_data
@pytest.mark.parametrize("stride", [4, 16])
def test_resnet18_with_published_weights_equals_float64_torch(resnet: FeatureNetwork, stride: int) -> None:
    graph = export_backbone(resnet, SIZE, SIZE)
    projection = gaussian_projection(graph.depth)
    model, _ = composed(resnet, graph, stride, projection)
    assert_close(summed(run(model, frames(3))), reference(resnet, frames(3), projection, stride))


def test_batch_of_any_size_gives_each_frame_its_own_features(lite0: FeatureNetwork, lite0_graph: FeatureGraph) -> None:
    model, _ = composed(lite0, lite0_graph, 8, gaussian_projection(lite0_graph.depth))
    batch = frames(3, count=5)
    together = run(model, batch)
    for i in range(5):
        for whole, single in zip(together, run(model, batch[i : i + 1]), strict=True):
            np.testing.assert_allclose(whole[i], single[0], rtol=1e-4, atol=1e-4)


def test_grey_frame_equals_the_same_frame_in_three_channels(lite0: FeatureNetwork, lite0_graph: FeatureGraph) -> None:
    projection = gaussian_projection(lite0_graph.depth)
    grey = frames(1)
    colour = np.repeat(grey, 3, axis=3)
    from_grey = run(composed(lite0, lite0_graph, 8, projection, channels=1)[0], grey)
    from_colour = run(composed(lite0, lite0_graph, 8, projection, channels=3)[0], colour)
    for a, b in zip(from_grey, from_colour, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_without_projection_every_layer_keeps_its_own_channels(
    lite0: FeatureNetwork, lite0_graph: FeatureGraph
) -> None:
    model, outputs = composed(lite0, lite0_graph, 4, None)
    maps = run(model, frames(3))
    starts = np.cumsum((0, *lite0_graph.channels))
    assert len(maps) == len(outputs) == 3
    for i, item in enumerate(maps):
        assert item.shape[1] == lite0_graph.depth
        assert item[:, starts[i] : starts[i + 1]].any()
        assert not np.delete(item, np.s_[starts[i] : starts[i + 1]], axis=1).any()


def test_layers_in_another_order_take_their_own_columns_of_the_projection() -> None:
    network, _ = build("efficientnet-lite0", layers=["blocks.10", "blocks.4", "blocks.2"])
    graph = export_backbone(network, SIZE, SIZE)
    projection = gaussian_projection(graph.depth)
    model, outputs = composed(network, graph, 8, projection)
    assert outputs == [("features_0", 8, 8), ("features_1", 4, 4)]
    assert_close(summed(run(model, frames(3))), reference(network, frames(3), projection, 8))


def test_map_is_the_finest_layer_where_nothing_is_asked(lite0: FeatureNetwork, lite0_graph: FeatureGraph) -> None:
    arguments = arguments_for(lite0, lite0_graph)
    del arguments["map_stride"]
    assert compose(lite0_graph, **arguments)[1][0] == ("features_0", 16, 16)
    assert compose(lite0_graph, **arguments, map_size=(8, 8))[1][0] == ("features_0", 8, 8)


def test_rectangular_frames(lite0: FeatureNetwork) -> None:
    graph = export_backbone(lite0, 32, 96)
    arguments = {**arguments_for(lite0, graph), "height": 32, "width": 96}
    model, outputs = compose(graph, **arguments)
    assert outputs == [("features_0", 4, 12), ("features_1", 2, 6)]
    maps = run(model, np.zeros((1, 32, 96, 3), np.uint8))
    assert [item.shape for item in maps] == [(1, DIMENSION, 4, 12), (1, DIMENSION, 2, 6)]


def test_graph_uses_operators_that_every_engine_fuses(lite0: FeatureNetwork, lite0_graph: FeatureGraph) -> None:
    model = onnx.load_from_string(composed(lite0, lite0_graph, 8, gaussian_projection(lite0_graph.depth))[0])
    assert {node.op_type for node in model.graph.node} == {
        "Transpose", "Cast", "Sub", "Conv", "Add", "Clip", "AveragePool", "Concat",
    }  # fmt: skip
    assert [entry.version for entry in model.opset_import] == [18]
    assert model.ir_version == 8


def test_same_arguments_give_the_same_bytes(lite0: FeatureNetwork, lite0_graph: FeatureGraph) -> None:
    projection = gaussian_projection(lite0_graph.depth)
    network_before = lite0_graph.model.SerializeToString(deterministic=True)
    first, _ = composed(lite0, lite0_graph, 8, projection)
    assert composed(lite0, lite0_graph, 8, projection)[0] == first
    assert lite0_graph.model.SerializeToString(deterministic=True) == network_before


def arguments_for(network: FeatureNetwork, graph: FeatureGraph) -> dict[str, Any]:
    description = NETWORKS[network.title]
    return {
        "height": SIZE,
        "width": SIZE,
        "channels": 3,
        "mean": description.mean,
        "std": description.std,
        "projection": gaussian_projection(graph.depth),
        "map_stride": 8,
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"height": 32}, "cut for 64 x 64"),
        ({"channels": 4}, "frames of 4 channels"),
        ({"channels": 2}, "frames of 2 channels"),
        ({"mean": (0.0,)}, "expected 3 finite numbers each"),
        ({"std": (1.0, 0.0, 1.0)}, "std above zero"),
        ({"std": (1.0, float("nan"), 1.0)}, "std above zero"),
        ({"mean": (1.0, float("inf"), 1.0)}, "finite"),
        ({"map_stride": 12}, "does not divide"),
        ({"map_stride": 0}, "does not divide"),
        ({"map_stride": 2}, "at most the finest layer's 16 x 16"),
        ({"map_stride": 8, "map_size": (8, 8)}, "expected one of them"),
        ({"map_stride": None, "map_size": (6, 6)}, "layer blocks.2 of 16 x 16 cannot be averaged down"),
        ({"map_stride": None, "map_size": (8, 2)}, "layer blocks.10 of 4 x 4 cannot be averaged down"),
        ({"map_stride": None, "map_size": (0, 0)}, "at most the finest"),
        ({"projection": np.zeros((4, 175), np.float32)}, r"expected float32 \(d, 176\)"),
        ({"projection": np.zeros((4, 176), np.float64)}, "projection of float64"),
        ({"projection": np.zeros((0, 176), np.float32)}, "empty"),
        ({"projection": np.full((4, 176), np.nan, np.float32)}, "NaN"),
    ],
)
def test_what_does_not_go_together_is_refused(
    lite0: FeatureNetwork, lite0_graph: FeatureGraph, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        compose(lite0_graph, **{**arguments_for(lite0, lite0_graph), **changed})
    assert "\n" not in str(caught.value)


def test_colour_frames_for_a_grey_network_are_refused(lite0: FeatureNetwork, lite0_graph: FeatureGraph) -> None:
    grey = replace(lite0_graph, image_channels=1)
    with pytest.raises(InputError, match="frames of 3 channels for a network of 1"):
        compose(grey, **{**arguments_for(lite0, lite0_graph), "mean": (0.0,), "std": (1.0,)})


def test_graphs_are_composed_without_torch() -> None:
    code = (
        "import sys; from flawline.export.graph import compose, load_backbone; import flawline.detectors; "
        "print([name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
