"""The composed graph, run by ONNX Runtime, against the same mathematics in float64 torch."""

import re
from collections.abc import Sequence
from pathlib import Path

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
    from flawline.runtime import extras  # noqa: F401  (switches telemetry off before the import)

    import onnxruntime

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
    double = build(network.title, "random")[0].double()
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
