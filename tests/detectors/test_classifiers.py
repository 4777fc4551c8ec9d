"""The classifiers: their layers, their published names and sizes, their weights from files, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.classifiers import CLASSIFIERS, build_classifier
from flawline.detectors.efficientnet_b0 import EfficientNetB0, InvertedResidual
from flawline.detectors.encoder_classifier import EncoderClassifier
from flawline.detectors.second_head import SecondHead
from flawline.runtime.errors import InputError

LENET_PARAMETERS = 61_706
"""LeCun et al. 1998 with every map of the second convolution connected: 156 + 2,416 + 48,120 + 10,164 + 850."""

PUBLISHED_B0_PARAMETERS = 5_288_548
"""Tan and Le 2019, table 2: 5.3 million; with 1,000 classes, as torchvision publishes them."""


def images(network: nn.Module, count: int = 3) -> torch.Tensor:
    return torch.rand(count, *network.image_shape, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_lenet_is_that_of_the_paper() -> None:
    network, record = build_classifier("lenet", 10, seed=3)
    assert count(network) == LENET_PARAMETERS
    assert record.random
    assert list(network.state_dict()) == [
        f"{layer}.{part}" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3") for part in ("weight", "bias")
    ]
    state = network.state_dict()
    x = (images(network) - 0.5) / 0.5
    for layer, padding in (("conv1", 2), ("conv2", 0)):
        x = functional.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=padding).relu()
        x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).amax((3, 5))
    x = x.reshape(len(x), 400)
    for layer in ("fc1", "fc2"):
        x = (x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]).clamp(min=0)
    torch.testing.assert_close(network.deep_features(images(network)), x, atol=1e-6, rtol=1e-5)
    assert x.shape == (3, network.feature_dimension) == (3, 84)
    logits = x @ state["fc3.weight"].T + state["fc3.bias"]
    torch.testing.assert_close(network(images(network)), logits, atol=1e-6, rtol=1e-5)


def test_efficientnet_b0_has_the_published_names_and_number_of_parameters() -> None:
    network, _ = build_classifier("efficientnet-b0", 1000, channels=3)
    assert count(network) == PUBLISHED_B0_PARAMETERS
    state = network.state_dict()
    shapes = {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.running_var": (32,),
        "features.1.0.block.0.0.weight": (32, 1, 3, 3),
        "features.1.0.block.1.fc1.weight": (8, 32, 1, 1),
        "features.1.0.block.2.0.weight": (16, 32, 1, 1),
        "features.2.0.block.0.0.weight": (96, 16, 1, 1),
        "features.3.1.block.1.0.weight": (240, 1, 5, 5),
        "features.6.3.block.2.fc2.bias": (1152,),
        "features.7.0.block.3.1.weight": (320,),
        "features.8.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "mean" not in state


def test_efficientnet_b0_gives_the_means_of_its_last_maps() -> None:
    network, _ = build_classifier("efficientnet-b0", 4, channels=3, side_px=64)
    network.eval()
    assert isinstance(network, EfficientNetB0)
    image = images(network, 2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    maps = network.features((image - mean[:, None, None]) / std[:, None, None])
    assert maps.shape == (2, 1280, 2, 2)
    features = network.deep_features(image)
    torch.testing.assert_close(features, maps.mean((2, 3)))
    assert features.shape == (2, network.feature_dimension)
    torch.testing.assert_close(network(image), network.classifier[1](features))


def test_grey_image_is_three_channels_alike() -> None:
    grey, _ = build_classifier("efficientnet-b0", 4, channels=1, side_px=32, seed=5)
    colour, _ = build_classifier("efficientnet-b0", 4, channels=3, side_px=32, seed=5)
    image = images(grey)
    torch.testing.assert_close(grey.eval()(image), colour.eval()(image.expand(-1, 3, -1, -1)))


def test_residuals_are_left_out_in_training_and_whole_in_the_mean() -> None:
    network, _ = build_classifier("efficientnet-b0", 4, channels=3, side_px=32)
    blocks = [module for module in network.modules() if isinstance(module, InvertedResidual)]
    assert [block._dropout for block in blocks] == pytest.approx([0.2 * number / 16 for number in range(16)])
    last = blocks[13]
    for norm in (module for module in last.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eval()
    x = torch.rand(1, 192, 4, 4).expand(2000, -1, -1, -1)
    torch.manual_seed(0)
    with torch.no_grad():
        residual = (last(x) - x)[:, 0, 0, 0]
        last.eval()
        whole = (last(x[:1]) - x[:1])[0, 0, 0, 0]
    left_out = float((residual == 0).double().mean())
    assert left_out == pytest.approx(0.2 * 13 / 16, abs=0.03)
    torch.testing.assert_close(residual[residual != 0].unique(), whole[None] / (1 - 0.2 * 13 / 16))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_weights_are_those_of_the_seed_and_leave_the_global_generator(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, record = build_classifier(name, 3, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    _, again = build_classifier(name, 3, seed=7)
    _, other = build_classifier(name, 3, seed=8)
    assert record == again != other
    assert first.training
    assert first.classes == 3


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_weights_of_a_file_are_taken_but_for_a_layer_of_other_classes(tmp_path: Path, name: str, ending: str) -> None:
    channels = 3
    source, _ = build_classifier(name, 7, channels=channels, seed=1)
    path = tmp_path / f"trained{ending}"
    state = source.state_dict()
    if ending == ".pth":
        torch.save(state, path)
    elif ending == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        np.savez(path, **{key: value.numpy() for key, value in state.items()})  # type: ignore[arg-type]
    same, record = build_classifier(name, 7, channels=channels, seed=2, weights=path)
    assert (record.origin, record.random) == (path.name, False)
    assert all(torch.equal(value, state[key]) for key, value in same.state_dict().items() if "tracked" not in key)
    fresh, _ = build_classifier(name, 5, channels=channels, seed=2)
    other, _ = build_classifier(name, 5, channels=channels, seed=2, weights=path)
    last = list(dict(other.named_parameters()))[-2:]
    for key, value in other.state_dict().items():
        if "tracked" not in key:
            assert torch.equal(value, (fresh.state_dict() if key in last else state)[key])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc4.weight": torch.zeros(2)}, "fc4.weight has no place in lenet: another network's weights"),
        ({"fc1.weight": torch.zeros(120, 401)}, r"fc1.weight of shape \(120, 401\), expected fc1.weight \(120, 400\)"),
        ({"fc1.weight": None}, "no fc1.weight, expected"),
        ({"fc3.weight": torch.zeros(7, 83)}, r"fc3.weight of shape \(7, 83\)"),
        ({"fc3.bias": torch.zeros(6)}, r"fc3.bias of shape \(6,\)|fc3.weight of shape"),
        ({"fc3.bias": torch.tensor(1.0)}, "another network's weights"),
        ({"fc3.bias": None}, "another network's weights"),
        ({"conv1.bias": torch.full((6,), float("nan"))}, "conv1.bias holds NaN"),
        (
            {"conv1.bias": torch.full((6,), 1e300, dtype=torch.float64)},
            "conv1.bias holds NaN or infinity as torch.float32",
        ),
        ({"conv1.bias": torch.zeros(6, dtype=torch.int64)}, "as torch.float32, or is of torch.int64"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    network, _ = build_classifier("lenet", 7)
    state = {**network.state_dict(), **change}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "weights.pth")
    for classes in (7, 5):
        with pytest.raises(InputError, match=message):
            build_classifier("lenet", classes, weights=tmp_path / "weights.pth")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        build_classifier("lenet", 7, weights=tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vgg"}, "classifier vgg: expected one of lenet, efficientnet-b0"),
        ({"classes": 1}, "a classifier of 1 classes; expected 2 to 65536"),
        ({"classes": 65537}, "a classifier of 65537 classes"),
        ({"channels": 2}, "images of 2 channels"),
        ({"side_px": 32}, "images of 32 px for lenet; expected 28 px"),
        ({"name": "efficientnet-b0", "side_px": 60}, "expected a multiple of 32 px"),
        ({"name": "efficientnet-b0", "side_px": 0}, "expected a multiple of 32 px"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_classifier(**{"name": "lenet", "classes": 10, **changes})  # type: ignore[arg-type]


def test_codes_of_an_encoder_are_deep_features() -> None:
    autoencoder = build_autoencoder("fully-connected", 8, 8, bottleneck=5)
    classifier = EncoderClassifier(autoencoder, 3, seed=0)
    image = images(classifier)
    assert torch.equal(classifier.deep_features(image), autoencoder.encoder(image))
    assert classifier.feature_dimension == 5


def test_second_head_has_the_layers_of_the_paper() -> None:
    head = SecondHead(84, seed=1)
    assert [tuple(p.shape) for p in head.parameters()] == [(256, 84), (256,), (256, 256), (256,), (1, 256), (1,)]
    features = torch.rand(4, 84)
    w1, b1, w2, b2, w3, b3 = head.parameters()
    expected = (((features @ w1.T + b1).relu() @ w2.T + b2).relu() @ w3.T + b3).sigmoid()
    torch.testing.assert_close(head(features), expected)
    assert torch.equal(head(features), head(features[:, :, None, None]))
    same = zip(head.parameters(), SecondHead(84, seed=1).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
