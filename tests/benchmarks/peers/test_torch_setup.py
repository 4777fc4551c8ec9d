"""One ResNet for all peers, from weights with batch normalisation apart or folded in, without torchvision."""

from collections import OrderedDict

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from flawline.benchmarks.peers.workers.torch_setup import filled  # noqa: E402


def network() -> torch.nn.Module:
    """The first layers of a ResNet in miniature, by torchvision's names, with statistics that are not neutral."""
    torch.manual_seed(0)
    shortcut = torch.nn.Sequential(torch.nn.Conv2d(4, 5, 1, bias=False), torch.nn.BatchNorm2d(5))
    layers = torch.nn.Sequential(
        OrderedDict(
            conv1=torch.nn.Conv2d(3, 4, 3, bias=False),
            bn1=torch.nn.BatchNorm2d(4),
            layer1=torch.nn.Sequential(OrderedDict(downsample=shortcut)),
        )
    )
    for norm in (layers.bn1, shortcut[1]):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            torch.nn.init.uniform_(tensor, 0.5, 2)
    return layers.eval()


def folded(given: torch.nn.Module) -> dict[str, np.ndarray]:
    """Its convolutions with the normalisations folded in."""
    found = {}
    shortcut = given.layer1.downsample
    for name, convolution, norm in (
        ("conv1", given.conv1, given.bn1),
        ("layer1.downsample.0", shortcut[0], shortcut[1]),
    ):
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        found[f"{name}.weight"] = (convolution.weight * gain[:, None, None, None]).detach().numpy()
        found[f"{name}.bias"] = (norm.bias - norm.running_mean * gain).detach().numpy()
    return found


def test_weights_with_normalisation_folded_in_compute_the_same(tmp_path):
    given, other = network(), network()
    np.savez(tmp_path / "folded.npz", **folded(given))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    state = filled(other.state_dict(), str(tmp_path / "folded.npz"), given.bn1.eps)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    other.load_state_dict(state)
    image = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(other(image), given(image))


def test_weights_with_normalisation_apart_are_taken_as_they_are(tmp_path):
    given = network().state_dict()
    torch.save(given, tmp_path / "apart.pth")
    state = filled(network().state_dict(), str(tmp_path / "apart.pth"), 1e-5)
    assert state.keys() == given.keys()
    assert all(torch.equal(state[name], value) for name, value in given.items())


def test_what_the_weights_lack_is_zero_behind_layer_3_and_an_error_before(tmp_path):
    given = network().state_dict()
    torch.save(given, tmp_path / "first.pth")
    late = {"layer4.0.conv1.weight": torch.ones(2, 2), "fc.bias": torch.ones(3)}
    state = filled({**given, **late}, str(tmp_path / "first.pth"), 1e-5)
    assert not any(state[name].any() for name in late)
    with pytest.raises(ValueError, match=r"first\.pth has no layer2\.0\.conv1\.weight; expected the weights of ResNet"):
        filled({**given, "layer2.0.conv1.weight": torch.ones(2, 2)}, str(tmp_path / "first.pth"), 1e-5)
